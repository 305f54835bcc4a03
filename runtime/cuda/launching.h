// From views to functors: element types at run time, pointers that kernels take, and whether they started.
#pragma once

#include <typeinfo>

#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"
#include "runtime/tensor.h"

namespace moesaic::cuda {

using kernels::Bf16;
using kernels::Real;

/// Starts kernels on a stream. Throws Error with the kernel's name where CUDA refuses it: a launch returns
/// nothing, and a later call would tell without saying which it was, or forget it.
struct Launcher {
    cudaStream_t stream;

    template <class Functor>
    void each(i64 count, const Functor& f) const {
        kernels::each(stream, count, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    template <class Functor>
    void each_row(i64 rows, const Functor& f) const {
        kernels::each_row(stream, rows, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    template <class Functor>
    void each_tile(const Functor& f) const {
        kernels::each_tile(stream, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    template <class Functor>
    void each_block(i64 blocks, const Functor& f) const {
        kernels::each_block(stream, blocks, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
};

/// Stands for a type.
template <class T>
struct TypeTag {
    using Type = T;
};

/// Calls `launch` with the tag of the real type that `dtype` stands for.
template <class Launch>
void with_real(DType dtype, Launch&& launch) {
    dtype == DType::f32 ? launch(TypeTag<float>{}) : launch(TypeTag<double>{});
}
/// As above, and for bf16 too.
template <class Launch>
void with_stored(DType dtype, Launch&& launch) {
    dtype == DType::bf16 ? launch(TypeTag<Bf16>{}) : with_real(dtype, launch);
}

template <class T>
[[nodiscard]] const T* in(ConstTensorView view) {
    if constexpr (std::is_same_v<T, Bf16>) {
        return reinterpret_cast<const Bf16*>(view.as<BFloat16>());
    } else {
        return view.as<T>();
    }
}
template <class T>
[[nodiscard]] T* out(TensorView view) {
    if constexpr (std::is_same_v<T, Bf16>) {
        return reinterpret_cast<Bf16*>(view.as<BFloat16>());
    } else {
        return view.as<T>();
    }
}
/// Null for an operand that is left out.
template <class T>
[[nodiscard]] const T* in_or_null(ConstTensorView view) {
    return view.elements() > 0 ? in<T>(view) : nullptr;
}
template <class T>
[[nodiscard]] T* out_or_null(TensorView view) {
    return view.elements() > 0 ? out<T>(view) : nullptr;
}

}  // namespace moesaic::cuda
