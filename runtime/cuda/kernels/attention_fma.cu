// Attention in tiles for f32: a lane has four rows of a warp's eight.
#include <type_traits>

#include "runtime/cuda/kernels/attention_tile_backward.h"

namespace moesaic::kernels {

template <int kDim_>
struct FmaUnits {
    using Stored = float;
    static constexpr int kDim = kDim_, kTile = 32, kChunk = 32, kStride = kDim + 4;
    static constexpr int kBuffers = kDim < 128 ? 2 : 1;  ///< in 48 KiB
    static constexpr int kRows = 8, kLaneRows = 4, kLanesPerRow = 16, kLaneColumns = kChunk / 16;
    static constexpr int kTileElements = kTile * kStride, kTileWords = kTileElements / 4;
    static constexpr int kScratchWords = kTileWarps * kChunk * 2;
    static constexpr float kPerUnit = 1;
    using Scores = float[kLaneRows][kLaneColumns];
    using Sums = float[kLaneRows][kDim / 16];

    int lane, first;  ///< of the block's rows
    float4* scratch;  ///< the warp's weights [kChunk,8], for lanes of other columns

    __device__ explicit FmaUnits(float4* block)
        : lane(static_cast<int>(threadIdx.x % 32)),
          first(static_cast<int>(threadIdx.x / 32) * 8),
          scratch(block + threadIdx.x / 32 * (kChunk * 2)) {}
    __device__ int row(int i) const { return first + lane / 16 * 4 + i; }
    __device__ int column(int j) const { return lane % 16 + 16 * j; }
    __device__ static float power(float x) { return std::exp(x); }

    /// The left operand: rows beyond the block's are its last.
    struct Rows {
        const float4* from[kLaneRows];
        int steps;  ///< of 4 columns

        __device__ Rows(const FmaUnits& units, const float* data, int stride, int count, int head_dim)
            : steps(head_dim / 4) {
            GPU_UNROLL
            for (int i = 0; i < kLaneRows; ++i)
                from[i] =
                    reinterpret_cast<const float4*>(data + i64{smaller(units.row(i), count - 1)} * stride);
        }
    };

    /// What a lane has of the products of rows of a with rows of b.
    __device__ static void dot(const Rows& a, const Rows& b, int lane, float (&products)[kLaneRows]) {
        GPU_UNROLL
        for (float& product : products) product = 0;
        for (int step = lane % kLanesPerRow; step < a.steps; step += kLanesPerRow) {
            GPU_UNROLL
            for (int i = 0; i < kLaneRows; ++i) {
                const float4 x = a.from[i][step], y = b.from[i][step];
                products[i] = std::fma(x.x, y.x, products[i]);
                products[i] = std::fma(x.y, y.y, products[i]);
                products[i] = std::fma(x.z, y.z, products[i]);
                products[i] = std::fma(x.w, y.w, products[i]);
            }
        }
    }
    /// scores += rows tileᵀ
    __device__ void add_scores(Scores& scores, const Rows& rows, const float* tile) const {
        for (int step = 0; step < rows.steps; ++step) {
            float4 b[kLaneColumns];
            GPU_UNROLL
            for (int j = 0; j < kLaneColumns; ++j)
                b[j] = reinterpret_cast<const float4*>(tile + column(j) * kStride)[step];
            GPU_UNROLL
            for (int i = 0; i < kLaneRows; ++i) {
                const float4 a = rows.from[i][step];
                GPU_UNROLL
                for (int j = 0; j < kLaneColumns; ++j) {
                    float sum = std::fma(a.x, b[j].x, scores[i][j]);
                    sum = std::fma(a.y, b[j].y, sum);
                    sum = std::fma(a.z, b[j].z, sum);
                    scores[i][j] = std::fma(a.w, b[j].w, sum);
                }
            }
        }
    }

    /// Columns of sums come in vectors of the lanes' side by side.
    static constexpr int kVector = kDim / 16 < 4 ? kDim / 16 : 4;
    using Vector = std::conditional_t<kVector == 4, float4, float2>;
    __device__ static void unpack(const float4& from, float (&to)[4]) {
        to[0] = from.x, to[1] = from.y, to[2] = from.z, to[3] = from.w;
    }
    __device__ static void unpack(const float2& from, float (&to)[2]) { to[0] = from.x, to[1] = from.y; }
    __device__ static void write(float4* to, const float* from) {
        gpu::store_whole(to, make_float4(from[0], from[1], from[2], from[3]));
    }
    __device__ static void write(float2* to, const float* from) {
        gpu::store_whole(to, make_float2(from[0], from[1]));
    }
    __device__ int first_column(int vector) const { return (vector * 16 + lane % 16) * kVector; }

    /// sums += weights tile
    __device__ void add_products(Sums& sums, const Scores& weights, const float* tile) const {
        __syncwarp();  // whoever still reads the last weights
        GPU_UNROLL
        for (int j = 0; j < kLaneColumns; ++j)
            scratch[column(j) * 2 + lane / 16] =
                float4{weights[0][j], weights[1][j], weights[2][j], weights[3][j]};
        __syncwarp();
        for (int key = 0; key < kChunk; ++key) {
            const float4 four = scratch[key * 2 + lane / 16];
            const float weight[kLaneRows] = {four.x, four.y, four.z, four.w};
            GPU_UNROLL
            for (int vector = 0; vector < kDim / 16 / kVector; ++vector) {
                float b[kVector];
                unpack(*reinterpret_cast<const Vector*>(tile + key * kStride + first_column(vector)), b);
                GPU_UNROLL
                for (int i = 0; i < kLaneRows; ++i) {
                    GPU_UNROLL
                    for (int n = 0; n < kVector; ++n) {
                        float& sum = sums[i][vector * kVector + n];
                        sum = std::fma(weight[i], b[n], sum);
                    }
                }
            }
        }
    }
    /// Row i of the lane's, of which `columns` are the operand's.
    __device__ void store(float* to, const Sums& sums, int i, int columns) const {
        GPU_UNROLL
        for (int vector = 0; vector < kDim / 16 / kVector; ++vector) {
            if (first_column(vector) >= columns) continue;
            write(reinterpret_cast<Vector*>(to + first_column(vector)), sums[i] + vector * kVector);
        }
    }
};

template <int kDim>
struct UnitsOf<float, kDim> {
    using Forward = FmaUnits<kDim>;
    using QueryGrad = FmaUnits<kDim>;
    using KeyGrad = FmaUnits<kDim>;
};

MOESAIC_TILES(float, 32);
MOESAIC_TILES(float, 64);
MOESAIC_TILES(float, 128);

}  // namespace moesaic::kernels
