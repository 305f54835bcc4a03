#include "runtime/cpu/attention.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/product_operands.h"

namespace moesaic {

using cpu::check_packed;
using cpu::expect;
using cpu::expect_real;
using cpu::with_real;

namespace {

/// A weight's extents as [G,N,P].
struct Matrices {
    i64 groups, n, p;
};
Matrices matrices_of(Shape weight) {
    if (weight.rank() == 3) return {weight[0], weight[1], weight[2]};
    return {1, weight.rows(), weight.cols()};
}

const i32* first_key_of(ConstTensorView first_key) {
    return first_key.elements() > 0 ? first_key.as<i32>() : nullptr;
}

/// What the forward and the backward have in common.
template <class Operation>
AttentionShape check_attention(const Operation& operation) {
    const i64 rows = operation.q.rows(), kv_width = operation.kv_heads * operation.head_dim;
    const DType real = operation.q.dtype;
    expect_real(real, "attention");
    MOESAIC_ASSERT(operation.kv_heads > 0 && operation.heads % operation.kv_heads == 0 &&
                       operation.seq_len > 0 && rows % operation.seq_len == 0,
                   "heads {} kv_heads {} rows {} seq_len {}", operation.heads, operation.kv_heads, rows,
                   operation.seq_len);
    expect(operation.q, rows, operation.heads * operation.head_dim, real, "attention q");
    expect(operation.k, rows, kv_width, real, "attention k");
    expect(operation.v, rows, kv_width, real, "attention v");
    expect(operation.out, rows, operation.heads * operation.head_dim, real, "attention out");
    expect(operation.log_sum_exp, operation.heads, rows, real, "attention log_sum_exp");
    if (operation.first_key.elements() > 0) {
        expect(operation.first_key, rows, 1, DType::int32, "attention first_key");
        MOESAIC_ASSERT(operation.causal, "first_key of {} rows in attention to all keys", rows);
    }
    return {
        rows, operation.heads, operation.kv_heads, operation.head_dim, operation.seq_len, operation.causal};
}

}  // namespace

void CpuBackend::gemm(Stream& stream, const Gemm& operation) {
    const auto& [a, b, c, trans_a, trans_b, accumulate, packed_b] = operation;
    const i64 inner = trans_a ? a.rows() : a.cols();
    if (cpu::any_bf16(a, b, c)) return cpu::gemm_in_f32(*this, stream, operation);
    expect_real(c.dtype, "gemm");
    expect(c, c.dtype, "gemm c");
    expect(a, trans_a ? inner : c.rows(), trans_a ? c.rows() : inner, c.dtype, "gemm a");
    expect(b, trans_b ? c.cols() : inner, trans_b ? inner : c.cols(), c.dtype, "gemm b");
    check_packed(packed_b, c.dtype, 1, inner, c.cols());
    run_on_host(stream, [this, operation, inner] {
        with_real(operation.c.dtype, [&](auto real) {
            using Real = decltype(real);
            multiply<Real>(threads_,
                           {.m = operation.c.rows(),
                            .n = operation.c.cols(),
                            .p = inner,
                            .a = operand(operation.a.as<Real>(), operation.a.cols(), operation.trans_a),
                            .b = operand(operation.b.as<Real>(), operation.b.cols(), operation.trans_b),
                            .c = operation.c.as<Real>(),
                            .c_row_stride = operation.c.cols(),
                            .accumulate = operation.accumulate,
                            .packed_b = cpu::data_or_null<Real>(operation.packed_b)},
                           library_);
        });
    });
}

PackedElements CpuBackend::packed_elements(Shape weight, DType dtype, i64 halves) const {
    if (by_library(dtype)) return {};
    const auto [groups, n, p] = matrices_of(weight);
    return {cpu::elements_of_copies(dtype, groups, p, n, halves),
            cpu::elements_of_copies(dtype, groups, n, p)};
}

namespace {

/// Copies one after the other of `count` matrices that stand one after the other: each [n,p], read as b [p,n]
/// where it is `transposed`, else as b [n,p].
template <class Real>
void pack_matrices(ThreadPool& threads, const Real* weight, i64 count, i64 n, i64 p, bool transposed,
                   TensorView copies) {
    if (!copies.data) return;
    const i64 rows = transposed ? p : n, columns = transposed ? n : p;
    for (i64 i = 0; i < count; ++i) {
        pack_matrix(threads, operand(weight + i * n * p, p, transposed), rows, columns,
                    copies.as<Real>() + i * packed_elements<Real>(rows, columns));
    }
}

}  // namespace

void CpuBackend::pack(Stream& stream, const PackWeight& operation) {
    const DType real = operation.weight.dtype;
    const i64 halves = operation.halves;
    expect_real(real, "pack");
    expect(operation.weight, real, "pack weight");
    const PackedElements elements = packed_elements(operation.weight.shape, real, halves);
    if (operation.transposed.data)
        expect(operation.transposed, elements.transposed, 1, real, "pack transposed");
    if (operation.plain.data) expect(operation.plain, elements.plain, 1, real, "pack plain");
    const auto [groups, n, p] = matrices_of(operation.weight.shape);
    MOESAIC_ASSERT(halves > 0 && n % halves == 0, "{} rows in {} halves", n, halves);
    if (by_library(real)) return;
    run_on_host(stream, [this, operation, halves, groups = groups, n = n, p = p] {
        with_real(operation.weight.dtype, [&](auto element) {
            using Real = decltype(element);
            const Real* const weight = operation.weight.as<Real>();
            pack_matrices(threads_, weight, groups * halves, n / halves, p, true, operation.transposed);
            pack_matrices(threads_, weight, groups, n, p, false, operation.plain);
        });
    });
}

void CpuBackend::attention(Stream& stream, const Attention& operation) {
    if (operation.q.dtype == DType::bf16) return cpu::attention_in_f32(*this, stream, operation);
    const AttentionShape shape = check_attention(operation);
    run_on_host(stream, [this, operation, shape] {
        with_real(operation.q.dtype, [&](auto real) {
            using Real = decltype(real);
            sequence_attention<Real>(threads_, {.shape = shape,
                                                .q = operation.q.as<Real>(),
                                                .k = operation.k.as<Real>(),
                                                .v = operation.v.as<Real>(),
                                                .out = operation.out.as<Real>(),
                                                .log_sum_exp = operation.log_sum_exp.as<Real>(),
                                                .first_key = first_key_of(operation.first_key)});
        });
    });
}

void CpuBackend::attention_backward(Stream& stream, const AttentionGrad& operation) {
    if (operation.q.dtype == DType::bf16) return cpu::attention_backward_in_f32(*this, stream, operation);
    const AttentionShape shape = check_attention(operation);
    const i64 width = operation.q.cols(), kv_width = operation.k.cols();
    expect(operation.d_out, shape.rows, width, operation.q.dtype, "attention d_out");
    expect(operation.dq, shape.rows, width, operation.q.dtype, "attention dq");
    expect(operation.dk, shape.rows, kv_width, operation.q.dtype, "attention dk");
    expect(operation.dv, shape.rows, kv_width, operation.q.dtype, "attention dv");
    run_on_host(stream, [this, operation, shape] {
        with_real(operation.q.dtype, [&](auto real) {
            using Real = decltype(real);
            sequence_attention_backward<Real>(threads_, {.shape = shape,
                                                         .q = operation.q.as<Real>(),
                                                         .k = operation.k.as<Real>(),
                                                         .v = operation.v.as<Real>(),
                                                         .out = operation.out.as<Real>(),
                                                         .log_sum_exp = operation.log_sum_exp.as<Real>(),
                                                         .d_out = operation.d_out.as<Real>(),
                                                         .dq = operation.dq.as<Real>(),
                                                         .dk = operation.dk.as<Real>(),
                                                         .dv = operation.dv.as<Real>(),
                                                         .first_key = first_key_of(operation.first_key)});
        });
    });
}

}  // namespace moesaic
