// The activations of feed-forwards: their kernels, on blocks of rows and columns.
#pragma once

#include <span>

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

/// Rows and columns of an activation's operands that share one slope. Rows of x (and dx) stand x_row_stride
/// elements apart, those of y (and dy) y_row_stride; the up half stands `half` elements behind the gate's.
struct ActivationBlock {
    ActivationKind kind = ActivationKind::swiglu;
    DType dtype = DType::f32;
    i64 rows = 0, columns = 0;
    i64 x_row_stride = 0, y_row_stride = 0, half = 0;
    double slope = 0;
};

/// y from x: as the operation Activation, on a block. An element's bits do not depend on the block it is in.
void activate(const ActivationBlock& block, const void* x, void* y);
/// dx from x and dy: as the operation ActivationGrad, without the slope's gradient.
void activate_backward(const ActivationBlock& block, const void* x, const void* dy, void* dx);

/// A product's result in f32, row_stride and half as in ActivationBlock.
struct ProductRows {
    const float* data = nullptr;
    i64 row_stride = 0, half = 0;
    bool streamed = false;  ///< x goes past the caches: nobody reads it before the backward
};
/// Rounds c to x, and y from the rounded x: the bits of one after the other.
void round_and_activate(const ActivationBlock& block, const ProductRows& c, BFloat16* x, BFloat16* y);
/// dx from x and the rounded dy.
void round_and_activate_backward(const ActivationBlock& block, const BFloat16* x, const ProductRows& dy,
                                 BFloat16* dx);

/// These rows of the operation; `rows_per_group` is the operation's.
void activation(const Activation& operation, std::span<const i64> rows_per_group, Range rows);
/// The same without the slopes' gradients.
void activation_grad(const ActivationGrad& operation, std::span<const i64> rows_per_group, Range rows);
/// The slopes' gradients of these groups.
void slope_grad(const ActivationGrad& operation, std::span<const i64> rows_per_group, Range groups);
/// Element `group` of the slopes; 0 where there are none.
[[nodiscard]] double slope_of(ConstTensorView slope, i64 group);

}  // namespace moesaic::cpu
