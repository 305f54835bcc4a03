// From views to functors: element types at run time, pointers that kernels take, and whether they started.
#pragma once

#include <typeinfo>

#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"
#include "runtime/cuda/kernels/tiles.h"
#include "runtime/tensor.h"

namespace moesaic::cuda {

using kernels::Bf16;
using kernels::Real;

/// Starts kernels on a stream. Throws Error with the kernel's name where CUDA refuses it: a launch returns
/// nothing, and a later call would tell without saying which it was, or forget it.
struct Launcher {
    cudaStream_t stream;

    template <class Functor>
    void each_quad(i64 count, const Functor& f) const {
        kernels::each_quad(stream, count, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    /// Columns of Functor's: quads, or pieces of whatever size.
    template <class Functor>
    void each_tile(i64 rows, i64 columns, const Functor& f) const {
        kernels::each_tile(stream, rows, columns, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    template <class Functor>
    void each_team(i64 count, const Functor& f) const {
        kernels::each_team(stream, count, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    template <class Functor>
    void each_row_of(i64 rows, i64 width, const Functor& f) const {
        kernels::each_row_of(stream, rows, width, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
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
    void each_head_block(const Functor& f) const {
        kernels::each_head_block(stream, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
    template <class Functor>
    void each_block(i64 blocks, const Functor& f) const {
        kernels::each_block(stream, blocks, f);
        check_launch(cudaGetLastError(), typeid(Functor));
    }
};

constexpr i64 quotient_up(i64 a, i64 b) {
    return (a + b - 1) / b;
}

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

using kernels::are_whole_quads;
using kernels::with_quads;
/// Quads of a row of `columns` elements, the last of which may be in part.
[[nodiscard]] constexpr i64 quads_of(i64 columns) {
    return (columns + kernels::kQuad - 1) / kernels::kQuad;
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
