// Attention in tiles for f32: a lane has four rows of a warp's eight.
#include "runtime/cuda/kernels/attention_tile_backward.h"

namespace moesaic::kernels {

template <int kDim_>
struct FmaUnits {
    static constexpr int kDim = kDim_, kTile = 32, kChunk = 32, kStride = kDim + 4;
    static constexpr int kLaneRows = 4, kLanesPerRow = 16, kLaneColumns = kChunk / 16;
    static constexpr int kTileWords = kTile * kStride / 4, kScratchWords = kTileWarps * kChunk * 2;
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
    struct alignas(4 * kVector) Vector {
        float value[kVector];
    };
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
                const Vector b =
                    *reinterpret_cast<const Vector*>(tile + key * kStride + first_column(vector));
                GPU_UNROLL
                for (int i = 0; i < kLaneRows; ++i) {
                    GPU_UNROLL
                    for (int n = 0; n < kVector; ++n) {
                        float& sum = sums[i][vector * kVector + n];
                        sum = std::fma(weight[i], b.value[n], sum);
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
            Vector whole;
            GPU_UNROLL
            for (int n = 0; n < kVector; ++n) whole.value[n] = sums[i][vector * kVector + n];
            *reinterpret_cast<Vector*>(to + first_column(vector)) = whole;
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
