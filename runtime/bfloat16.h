// Conversions of single bfloat16 numbers; the CPU back end's vector loads and stores do the same.
#pragma once

#include <bit>

#include "runtime/tensor.h"

namespace moesaic {

/// Exact: every bfloat16 is an f32.
[[nodiscard]] constexpr float widened(BFloat16 value) {
    return std::bit_cast<float>(static_cast<u32>(value.bits) << 16);
}

/// To the nearest, ties to even; beyond the largest finite number infinity, as IEEE 754 rounds. NaN stays
/// NaN.
[[nodiscard]] constexpr BFloat16 to_bfloat16(float value) {
    const u32 bits = std::bit_cast<u32>(value);
    if (value != value)
        return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};  // quiet: stays NaN when cut
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// As above, rounded once: through f32 a value beside a tie could become the tie and round a second time.
[[nodiscard]] constexpr BFloat16 to_bfloat16(double value) {
    const float nearest = static_cast<float>(value);
    const u32 bits = std::bit_cast<u32>(nearest);
    const double lost = value - static_cast<double>(nearest);
    // Infinite and NaN differences fail both comparisons, so that such values pass unchanged.
    if ((bits & 0xffffu) != 0x8000u || !(lost > 0 || lost < 0)) return to_bfloat16(nearest);
    const bool outward = (lost > 0) == (value > 0);
    return to_bfloat16(std::bit_cast<float>(outward ? bits + 1 : bits - 1));
}

/// What a tensor of type `dtype`, a floating-point one, holds of `value`.
[[nodiscard]] constexpr double rounded_to(DType dtype, double value) {
    if (dtype == DType::bf16) return static_cast<double>(widened(to_bfloat16(value)));
    return dtype == DType::f32 ? static_cast<double>(static_cast<float>(value)) : value;
}

}  // namespace moesaic
