// Attention in tiles for bf16 on tensor cores: products of pairs of bf16 summed in f32. Forward, powers
// multiply in two parts of bf16: rounded to one, they sent a token near a tie to another expert than the CPU
// does. Backward, powers and gradients of scores are rounded to bf16 before they multiply.
#include "runtime/cuda/kernels/attention_tile_backward.h"

namespace moesaic::kernels {

/// A warp's rows in kParts of 16; of 16 columns of scores a lane has four in two rows of each. kResident: the
/// rows stay in registers. kTwice: what multiplies tiles does so in two parts of bf16, which are 16 bits
/// together.
template <int kDim_, int kTile_, int kChunk_, bool kResident, int kParts = 1, int kColumns = kDim_,
          bool kTwice = false>
struct TensorUnits {
    using Stored = Bf16;
    static constexpr int kDim = kDim_, kTile = kTile_, kChunk = kChunk_, kBuffers = 2, kStride = kDim + 8;
    static constexpr int kRows = 16 * kParts, kLaneRows = 2 * kParts, kLanesPerRow = 4,
                         kLaneColumns = kChunk / 4;
    static constexpr int kTileElements = kTile * kStride, kTileWords = kTileElements / 8, kScratchWords = 1;
    static constexpr float kPerUnit = 1.44269504F;  ///< scores are counted in ln 2
    using Scores = float[kLaneRows][kLaneColumns];
    using Sums = float[kLaneRows][kColumns / 4];

    int lane, first;  ///< of the block's rows

    __device__ explicit TensorUnits(const float4*)
        : lane(static_cast<int>(threadIdx.x % 32)), first(static_cast<int>(threadIdx.x / 32) * 16 * kParts) {}
    __device__ int row(int i) const { return first + lane / 4 + 8 * i; }
    __device__ int column(int j) const { return j / 2 * 8 + lane % 4 * 2 + j % 2; }
    __device__ static float power(float x) { return gpu::power_of_2(x); }

    /// The left operand: rows beyond the block's are its last.
    struct Rows {
        const unsigned* from[kLaneRows];
        int steps;  ///< of 16 columns
        unsigned resident[kResident ? kDim / 16 : 1][kParts][4];

        __device__ Rows(const TensorUnits& units, const Bf16* data, int stride, int count, int head_dim)
            : steps(head_dim / 16) {
            GPU_UNROLL
            for (int i = 0; i < kLaneRows; ++i)
                from[i] =
                    reinterpret_cast<const unsigned*>(data + i64{smaller(units.row(i), count - 1)} * stride) +
                    units.lane % 4;
            if constexpr (kResident) {
                GPU_UNROLL
                for (int step = 0; step < kDim / 16; ++step) {
                    GPU_UNROLL
                    for (int part = 0; part < kParts; ++part) read(step, part, resident[step][part]);
                }
            }
        }
        __device__ void read(int step, int part, unsigned (&a)[4]) const {
            GPU_UNROLL
            for (int i = 0; i < 4; ++i)
                a[i] = step < steps ? from[2 * part + i % 2][step * 8 + i / 2 * 4] : 0;
        }
        __device__ void get(int step, int part, unsigned (&a)[4]) const {
            if constexpr (kResident) {
                GPU_UNROLL
                for (int i = 0; i < 4; ++i) a[i] = resident[step][part][i];
            } else {
                read(step, part, a);
            }
        }
    };

    /// What a lane has of the products of rows of a with rows of b.
    __device__ static void dot(const Rows& a, const Rows& b, int, float (&products)[kLaneRows]) {
        GPU_UNROLL
        for (float& product : products) product = 0;
        for (int step = 0; step < a.steps; ++step) {
            GPU_UNROLL
            for (int i = 0; i < 2 * kLaneRows; ++i) {
                const int row = i % kLaneRows, at = step * 8 + i / kLaneRows * 4;
                const unsigned x = a.from[row][at], y = b.from[row][at];
                products[row] = std::fma(__uint_as_float(x << 16), __uint_as_float(y << 16), products[row]);
                products[row] = std::fma(__uint_as_float(x & 0xffff0000U), __uint_as_float(y & 0xffff0000U),
                                         products[row]);
            }
        }
    }
    /// 16 columns from `column` on, of all rows.
    template <int kWidth>
    __device__ static void multiply(float (&sums)[kLaneRows][kWidth], int column,
                                    const unsigned (&a)[kParts][4], const unsigned (&b)[4]) {
        const int j = column / 4;
        GPU_UNROLL
        for (int part = 0; part < kParts; ++part) {
            float(&upper)[kWidth] = sums[2 * part], (&lower)[kWidth] = sums[2 * part + 1];
            gpu::multiply_matrices(upper[j], upper[j + 1], lower[j], lower[j + 1], a[part], b[0], b[1]);
            gpu::multiply_matrices(upper[j + 2], upper[j + 3], lower[j + 2], lower[j + 3], a[part], b[2],
                                   b[3]);
        }
    }

    /// scores += rows tileᵀ
    __device__ void add_scores(Scores& scores, const Rows& rows, const Bf16* tile) const {
        const Bf16* const mine = tile + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
        const auto take = [&](int step) {
            unsigned a[kParts][4];
            GPU_UNROLL
            for (int part = 0; part < kParts; ++part) rows.get(step, part, a[part]);
            GPU_UNROLL
            for (int column = 0; column < kChunk; column += 16) {
                unsigned b[4];
                gpu::load_matrices(b, mine + column * kStride + step * 16);
                multiply(scores, column, a, b);
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
        for (int key = 0; key < kChunk; key += 16) {
            unsigned a[kParts][4], rest[kParts][4];  // what rounding took, rounded
            GPU_UNROLL
            for (int part = 0; part < kParts; ++part) {
                GPU_UNROLL
                for (int i = 0; i < 4; ++i) {
                    const float(&row)[kLaneColumns] = weights[2 * part + i % 2];
                    const int j = key / 4 + i / 2 * 2;
                    const unsigned pair = gpu::bf16_pair(row[j], row[j + 1]);
                    a[part][i] = pair;
                    if constexpr (kTwice)
                        rest[part][i] = gpu::bf16_pair(row[j] - __uint_as_float(pair << 16),
                                                       row[j + 1] - __uint_as_float(pair & 0xffff0000U));
                }
            }
            GPU_UNROLL
            for (int column = 0; column < kColumns; column += 16) {
                unsigned b[4];
                gpu::load_transposed(b, mine + key * kStride + column);
                multiply(sums, column, a, b);
                if constexpr (kTwice) multiply(sums, column, rest, b);
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

/// Two tiles of both operands take less than 48 KiB; what a lane keeps, at most 255 registers.
template <int kDim>
struct UnitsOf<Bf16, kDim> {
    static constexpr int kTile = kDim <= 64 ? 64 : kDim == 128 ? 32 : 16, kHalf = kDim <= 128 ? 32 : 16;
    static constexpr bool kResident = kDim <= 128;
    static constexpr int kParts = AttentionTile<Bf16, kDim>::kRows / (16 * kTileWarps);
    using Forward = TensorUnits<kDim, kTile,
                                kDim == 32   ? 64
                                : kDim == 64 ? 32
                                             : 16,
                                kResident, kParts, kDim, true>;
    using QueryGrad = TensorUnits<kDim, kTile, kHalf, kResident>;
    using KeyGrad = TensorUnits<kDim, kTile, 16, kResident, 1, KeyGradTile<Bf16, kDim>::kColumns>;
};

MOESAIC_TILES(Bf16, 32);
MOESAIC_TILES(Bf16, 64);
MOESAIC_TILES(Bf16, 128);
MOESAIC_TILES(Bf16, 256);

}  // namespace moesaic::kernels
