// Attention: in tiles where heads and operands allow, else a warp for every row.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/attention_tiles.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

namespace {

template <class Operation>
kernels::HeadShape head_shape(const Operation& op) {
    MOESAIC_ASSERT(op.head_dim <= 32 * kernels::kMostHeadColumns, "head_dim {}", op.head_dim);
    return {op.q.rows(),
            op.heads,
            op.kv_heads,
            op.head_dim,
            op.seq_len,
            op.causal,
            in_or_null<i32>(op.first_key),
            1 / std::sqrt(static_cast<double>(op.head_dim))};
}

/// Rows of heads are then multiples of 16 bytes.
template <class T>
bool go_in_tiles(i64 head_dim, std::initializer_list<ConstTensorView> operands) {
    constexpr std::uintptr_t kVector = 16;
    return head_dim % kernels::kHeadStep<T> == 0 && head_dim <= kernels::kMostHeadDim<T> &&
           std::ranges::all_of(operands, [](ConstTensorView view) {
               return reinterpret_cast<std::uintptr_t>(view.data) % kVector == 0;
           });
}

/// Calls `launch` with the least width of tiles that holds head_dim columns.
template <class T, class Launch>
void with_tile_width(i64 head_dim, Launch&& launch) {
    if (head_dim <= 32) return launch(std::integral_constant<int, 32>{});
    if (head_dim <= 64) return launch(std::integral_constant<int, 64>{});
    if constexpr (std::is_same_v<T, Bf16>) {
        if (head_dim > 128) return launch(std::integral_constant<int, 256>{});
    }
    launch(std::integral_constant<int, 128>{});
}

}  // namespace

void CudaBackend::attention(Stream& stream, const Attention& op) {
    const Launcher on = checked(stream, &Backend::attention, op);
    const kernels::HeadShape shape = head_shape(op);
    with_stored(op.q.dtype, [&]<class T>(TypeTag<T>) {
        const T *const q = in<T>(op.q), *const k = in<T>(op.k), *const v = in<T>(op.v);
        auto* const sums = out<Real<T>>(op.log_sum_exp);
        if constexpr (!std::is_same_v<T, double>) {
            if (go_in_tiles<T>(op.head_dim, {op.q, op.k, op.v, op.out})) {
                return with_tile_width<T>(op.head_dim, [&](auto width) {
                    on.each_head_block(kernels::AttentionTile<T, decltype(width)::value>{
                        tile_shape(shape), q, k, v, out<T>(op.out), sums});
                });
            }
        }
        on.each_row(shape.heads * shape.rows, kernels::AttentionRow<T>{shape, q, k, v, out<T>(op.out), sums});
    });
}

namespace {

template <class T>
void differentiate(const Launcher& on, const kernels::HeadShape& shape, const AttentionGrad& op,
                   Real<T>* delta) {
    const T *const q = in<T>(op.q), *const k = in<T>(op.k), *const v = in<T>(op.v), *const y = in<T>(op.out),
                   *const d = in<T>(op.d_out);
    T *const dq = out<T>(op.dq), *const dk = out<T>(op.dk), *const dv = out<T>(op.dv);
    const Real<T>* const sums = in<Real<T>>(op.log_sum_exp);
    if constexpr (!std::is_same_v<T, double>) {
        if (go_in_tiles<T>(op.head_dim, {op.q, op.k, op.v, op.out, op.d_out, op.dq, op.dk, op.dv})) {
            return with_tile_width<T>(op.head_dim, [&](auto width) {
                constexpr int kDim = decltype(width)::value;
                on.each_head_block(
                    kernels::QueryGradTile<T, kDim>{tile_shape(shape), q, k, v, y, d, sums, dq, delta});
                on.each_head_block(
                    kernels::KeyGradTile<T, kDim>{tile_shape(shape), q, k, v, d, sums, delta, dk, dv});
            });
        }
    }
    const i64 rows = shape.heads * shape.rows;
    on.each_row(rows, kernels::AttentionDeltaRow<T>{shape, y, d, delta});
    on.each_row(rows, kernels::QueryGradRow<T>{shape, q, k, v, d, sums, delta, dq});
    on.each_row(shape.kv_heads * shape.rows, kernels::KeyGradRow<T>{shape, q, k, v, d, sums, delta, dk, dv});
}

}  // namespace

void CudaBackend::attention_backward(Stream& stream, const AttentionGrad& op) {
    const Launcher on = checked(stream, &Backend::attention_backward, op);
    Tensor delta = allocate({op.heads, op.q.rows()}, accumulation_type(op.q.dtype));
    with_stored(op.q.dtype,
                [&]<class T>(TypeTag<T>) { differentiate<T>(on, head_shape(op), op, out<Real<T>>(delta)); });
}

}  // namespace moesaic
