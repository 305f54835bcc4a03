// What the lanes of a warp compute together on small matrices: for kernels as g++ compiles them, and for PTX.
#include "tests/cuda_host/device.h"

namespace cuda_host {

namespace {

float widened(std::uint32_t bits) {
    return __uint_as_float(bits << 16);
}
/// Element k of 16 that four lanes have: pairs of the first eight in their word `first`, of the last in
/// `last`.
float element(const WarpWords& words, int first_lane, int first, int last, int k) {
    const std::uint32_t pair = words.of[first_lane + k % 8 / 2][k < 8 ? first : last];
    return widened(k % 2 == 0 ? pair & 0xffffu : pair >> 16);
}

std::uint32_t rounded(float value) {
    if (value != value) return 0x7fff;
    const std::uint32_t bits = __float_as_uint(value);
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

}  // namespace

std::uint32_t bf16_pair(float first, float second) {
    return rounded(first) | rounded(second) << 16;
}

void multiply_matrices(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                       Place place) {
    const WarpWords& words = gather_words({a[0], a[1], a[2], a[3], b0, b1}, place);
    const int lane = thread_number() % 32;
    for (int i = 0; i < 4; ++i) {
        const int below = i / 2, row_lane = lane / 4 * 4, column_lane = (lane % 4 * 2 + i % 2) * 4;
        for (int k = 0; k < 16; ++k)
            sums[i] += element(words, row_lane, below, below + 2, k) * element(words, column_lane, 4, 5, k);
    }
}

void share_matrices(std::uint32_t (&pairs)[4], const std::uint32_t (&row)[4], bool transposed, Place place) {
    const WarpWords& words = gather_words({row[0], row[1], row[2], row[3], 0, 0}, place);
    const int lane = thread_number() % 32, high = lane / 4, low = lane % 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
        const auto half = [&](int i, int j) {
            return words.of[matrix * 8 + i][j / 2] >> (j % 2 * 16) & 0xffffu;
        };
        pairs[matrix] = transposed ? half(2 * low, high) | half(2 * low + 1, high) << 16
                                   : words.of[matrix * 8 + high][low];
    }
}

}  // namespace cuda_host
