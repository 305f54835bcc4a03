// Element types at run time for kernels without vector code, and single elements of any of them.
#pragma once

#include "runtime/bfloat16.h"

namespace moesaic::cpu {

/// Calls `kernel` with a value of the real type that `dtype` stands for.
template <class Kernel>
void with_real(DType dtype, Kernel&& kernel) {
    dtype == DType::f32 ? kernel(float{}) : kernel(double{});
}

/// As above, and for bf16 too.
template <class Kernel>
void with_stored(DType dtype, Kernel&& kernel) {
    dtype == DType::bf16 ? kernel(BFloat16{}) : with_real(dtype, kernel);
}

template <class Stored>
using RealType = std::conditional_t<std::is_same_v<Stored, BFloat16>, float, Stored>;

/// Exact.
template <class Stored>
[[nodiscard]] RealType<Stored> read(Stored value) {
    if constexpr (std::is_same_v<Stored, BFloat16>) {
        return widened(value);
    } else {
        return value;
    }
}

/// Rounded once where `to` is narrower.
template <class Stored>
void write(Stored& to, RealType<Stored> value) {
    if constexpr (std::is_same_v<Stored, BFloat16>) {
        to = to_bfloat16(value);
    } else {
        to = value;
    }
}

}  // namespace moesaic::cpu
