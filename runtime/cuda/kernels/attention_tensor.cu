// Attention in tiles for bf16 on tensor cores: products of pairs of bf16 summed in f32; powers and gradients
// of scores are rounded to bf16 before they multiply.
#include "runtime/cuda/kernels/attention_tile_backward.h"

namespace moesaic::kernels {

/// A warp's 16 rows; of 16 columns of scores a lane has four in two rows. kResident: the rows stay in
/// registers.
template <int kDim_, int kTile_, int kChunk_, bool kResident, int kColumns = kDim_>
struct TensorUnits {
    static constexpr int kDim = kDim_, kTile = kTile_, kChunk = kChunk_, kStride = kDim + 8;
    static constexpr int kLaneRows = 2, kLanesPerRow = 4, kLaneColumns = kChunk / 4;
    static constexpr int kTileWords = kTile * kStride / 8, kScratchWords = 1;
    static constexpr float kPerUnit = 1.44269504F;  ///< scores are counted in ln 2
    using Scores = float[kLaneRows][kLaneColumns];
    using Sums = float[kLaneRows][kColumns / 4];

    int lane, first;  ///< of the block's rows

    __device__ explicit TensorUnits(const float4*)
        : lane(static_cast<int>(threadIdx.x % 32)), first(static_cast<int>(threadIdx.x / 32) * 16) {}
    __device__ int row(int i) const { return first + lane / 4 + 8 * i; }
    __device__ int column(int j) const { return j / 2 * 8 + lane % 4 * 2 + j % 2; }
    __device__ static float power(float x) { return gpu::power_of_2(x); }

    /// The left operand: rows beyond the block's are its last.
    struct Rows {
        const unsigned* from[kLaneRows];
        int steps;  ///< of 16 columns
        unsigned resident[kResident ? kDim / 16 : 1][4];

        __device__ Rows(const TensorUnits& units, const Bf16* data, int stride, int count, int head_dim)
            : steps(head_dim / 16) {
            GPU_UNROLL
            for (int i = 0; i < kLaneRows; ++i)
                from[i] =
                    reinterpret_cast<const unsigned*>(data + i64{smaller(units.row(i), count - 1)} * stride) +
                    units.lane % 4;
            if constexpr (kResident) {
                GPU_UNROLL
                for (int step = 0; step < kDim / 16; ++step) read(step, resident[step]);
            }
        }
        __device__ void read(int step, unsigned (&a)[4]) const {
            GPU_UNROLL
            for (int i = 0; i < 4; ++i) a[i] = step < steps ? from[i % 2][step * 8 + i / 2 * 4] : 0;
        }
        __device__ void get(int step, unsigned (&a)[4]) const {
            if constexpr (kResident) {
                GPU_UNROLL
                for (int i = 0; i < 4; ++i) a[i] = resident[step][i];
            } else {
                read(step, a);
            }
        }
    };

    template <int kLaneWidth>
    __device__ static void multiply(float (&sums)[kLaneRows][kLaneWidth], int j, const unsigned (&a)[4],
                                    unsigned b0, unsigned b1) {
        gpu::multiply_matrices(sums[0][j], sums[0][j + 1], sums[1][j], sums[1][j + 1], a, b0, b1);
    }

    /// scores += rows tileᵀ
    __device__ void add_scores(Scores& scores, const Rows& rows, const Bf16* tile) const {
        const Bf16* const mine = tile + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
        const auto take = [&](int step) {
            unsigned a[4];
            rows.get(step, a);
            GPU_UNROLL
            for (int pair = 0; pair < kChunk / 16; ++pair) {
                unsigned b[4];
                gpu::load_matrices(b, mine + pair * 16 * kStride + step * 16);
                multiply(scores, 4 * pair, a, b[0], b[1]);
                multiply(scores, 4 * pair + 2, a, b[2], b[3]);
            }
        };
        if constexpr (kResident) {
            GPU_UNROLL
            for (int step = 0; step < kDim / 16; ++step) take(step);
        } else {
            GPU_KEEP_LOOP
            for (int step = 0; step < rows.steps; ++step) take(step);
        }
    }
    /// sums += weights tile
    __device__ void add_products(Sums& sums, const Scores& weights, const Bf16* tile) const {
        const Bf16* const mine = tile + lane % 16 * kStride + lane / 16 * 8;
        GPU_UNROLL
        for (int step = 0; step < kChunk / 16; ++step) {
            const int j = 4 * step;
            const unsigned a[4] = {gpu::bf16_pair(weights[0][j], weights[0][j + 1]),
                                   gpu::bf16_pair(weights[1][j], weights[1][j + 1]),
                                   gpu::bf16_pair(weights[0][j + 2], weights[0][j + 3]),
                                   gpu::bf16_pair(weights[1][j + 2], weights[1][j + 3])};
            GPU_UNROLL
            for (int pair = 0; pair < kColumns / 16; ++pair) {
                unsigned b[4];
                gpu::load_transposed(b, mine + step * 16 * kStride + pair * 16);
                multiply(sums, 4 * pair, a, b[0], b[1]);
                multiply(sums, 4 * pair + 2, a, b[2], b[3]);
            }
        }
    }
    /// Row i of the lane's, of which `columns` are the operand's.
    __device__ void store(Bf16* to, const Sums& sums, int i, int columns) const {
        GPU_UNROLL
        for (int j = 0; j < kColumns / 4; j += 2) {
            if (column(j) >= columns) continue;
            *reinterpret_cast<unsigned*>(to + column(j)) = gpu::bf16_pair(sums[i][j], sums[i][j + 1]);
        }
    }
};

/// Tiles of both operands take less than 48 KiB; what a lane keeps, less than 255 registers.
template <int kDim>
struct UnitsOf<Bf16, kDim> {
    static constexpr int kTile = kDim > 128 ? 32 : 64;
    using Forward = TensorUnits<kDim, kTile, kTile, kDim <= 128>;
    using QueryGrad = TensorUnits<kDim, kTile, kDim <= 128 ? 32 : 16, kDim <= 128>;
    using KeyGrad = TensorUnits<kDim, kTile, 16, kDim <= 128, KeyGradTile<Bf16, kDim>::kColumns>;
};

MOESAIC_TILES(Bf16, 32);
MOESAIC_TILES(Bf16, 64);
MOESAIC_TILES(Bf16, 128);
MOESAIC_TILES(Bf16, 256);

}  // namespace moesaic::kernels
