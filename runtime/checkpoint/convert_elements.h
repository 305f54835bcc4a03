// Copying of stored elements into a tensor of another floating-point type.
#pragma once

#include <cstddef>

#include "runtime/tensor.h"

namespace moesaic {

/// May the elements of one type be stored as another? True for equal types and among f64, f32 and bf16.
[[nodiscard]] bool convertible(DType from, DType to);

/// Fills `target` (host memory) from elements of type `from` at `source`, which need not be aligned. To a
/// narrower type each value is rounded to the nearest, ties to even.
void convert_elements(const std::byte* source, DType from, const TensorView& target);

}  // namespace moesaic
