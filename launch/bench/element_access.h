// Single elements of host memory of any real type, for filling and checking.
#pragma once

#include "runtime/bfloat16.h"
#include "runtime/tensor.h"

namespace moesaic {

[[nodiscard]] inline double load_element(ConstTensorView view, i64 i) {
    switch (view.dtype) {
        case DType::f64:
            return view.as<double>()[i];
        case DType::bf16:
            return static_cast<double>(widened(view.as<BFloat16>()[i]));
        default:
            return static_cast<double>(view.as<float>()[i]);
    }
}

/// Rounds once.
inline void store_element(TensorView view, i64 i, double value) {
    switch (view.dtype) {
        case DType::f64:
            view.as<double>()[i] = value;
            return;
        case DType::bf16:
            view.as<BFloat16>()[i] = to_bfloat16(value);
            return;
        default:
            view.as<float>()[i] = static_cast<float>(value);
    }
}

}  // namespace moesaic
