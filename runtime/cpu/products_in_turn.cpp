#include "runtime/cpu/products_in_turn.h"

#include <algorithm>
#include <numeric>

namespace moesaic::cpu {

namespace {

constexpr i64 kRowsAtOnce = 256;

/// dy = the product of `count` rows of one group, from row `first` of all.
void multiply_rows(Backend& backend, Stream& stream, const GroupedGemm& product, i64 group, i64 first,
                   TensorView dy) {
    const i64 count = dy.rows(), packed = product.packed_b.elements() / product.b.rows();
    GroupedGemm part = product;
    part.b = product.b.slice_rows(group, 1);
    part.c = dy;
    part.rows_per_group = {&count, 1};
    if (product.a_rows.data) {
        part.a_rows = product.a_rows.slice_rows(first, count);
    } else {
        part.a = product.a.slice_rows(first, count);
    }
    if (packed > 0) part.packed_b = product.packed_b.flat(group * packed, packed);
    backend.grouped_gemm(stream, part);
}

}  // namespace

void grouped_gemm_activation_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                     const Activation& after) {
    const i64 rows = std::accumulate(product.rows_per_group.begin(), product.rows_per_group.end(), i64{0});
    backend.grouped_gemm(stream, product);
    Activation activation = after;
    activation.x = product.c.slice_rows(0, rows);
    activation.y = after.y.slice_rows(0, rows);
    if (after.kind == ActivationKind::prelu) activation.rows_per_group = product.rows_per_group;
    backend.activation(stream, activation);
}

void grouped_gemm_activation_backward_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                              const ActivationGrad& after) {
    const i64 width = after.dx.cols() / activation_halves(after.kind);
    Tensor dy_room = backend.allocate({kRowsAtOnce, width}, after.dx.dtype);
    i64 first = 0;
    for (i64 group = 0; group < std::ssize(product.rows_per_group); ++group) {
        i64 left = product.rows_per_group[static_cast<std::size_t>(group)];
        for (i64 count = 0; left > 0; left -= count, first += count) {
            count = std::min(kRowsAtOnce, left);
            const TensorView dy = dy_room.slice_rows(0, count);
            multiply_rows(backend, stream, product, group, first, dy);
            ActivationGrad part = after;
            part.x = after.x.slice_rows(first, count);
            part.dy = dy;
            part.dx = after.dx.slice_rows(first, count);
            if (after.kind == ActivationKind::prelu) {
                part.slope = after.slope.slice_rows(group, 1);
                part.d_slope = after.d_slope.slice_rows(group, 1);
                part.rows_per_group = {&count, 1};
            }
            backend.activation_backward(stream, part);
        }
    }
}

}  // namespace moesaic::cpu
