// Stored elements and the type they are computed in, for kernels. runtime/bfloat16.h says the same for the
// host.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/base/types.h"

namespace moesaic::kernels {

/// Storage of BFloat16.
struct Bf16 {
    std::uint16_t bits;
};

template <class Stored>
struct RealTypeOf {
    using Type = Stored;
};
template <>
struct RealTypeOf<Bf16> {
    using Type = float;
};
/// f32 for bf16, else the type itself.
template <class Stored>
using Real = typename RealTypeOf<Stored>::Type;

}  // namespace moesaic::kernels
