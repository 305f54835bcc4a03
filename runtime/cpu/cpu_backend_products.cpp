#include "runtime/cpu/attention.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/product_operands.h"
#include "runtime/cpu/tile_products.h"

namespace moesaic {

using cpu::check_packed;
using cpu::expect;
using cpu::expect_real;
using cpu::expect_stored;
using cpu::with_real;
using cpu::with_stored;

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
    const DType stored = operation.q.dtype;
    expect_stored(stored, "attention");
    MOESAIC_ASSERT(operation.kv_heads > 0 && operation.heads % operation.kv_heads == 0 &&
                       operation.seq_len > 0 && rows % operation.seq_len == 0,
                   "heads {} kv_heads {} rows {} seq_len {}", operation.heads, operation.kv_heads, rows,
                   operation.seq_len);
    expect(operation.q, rows, operation.heads * operation.head_dim, stored, "attention q");
    expect(operation.k, rows, kv_width, stored, "attention k");
    expect(operation.v, rows, kv_width, stored, "attention v");
    expect(operation.out, rows, operation.heads * operation.head_dim, stored, "attention out");
    expect(operation.log_sum_exp, operation.heads, rows, accumulation_type(stored), "attention log_sum_exp");
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
    const DType real = cpu::product_type({a, b, c}, "gemm");
    expect(a, trans_a ? inner : c.rows(), trans_a ? c.rows() : inner, a.dtype, "gemm a");
    expect(b, trans_b ? c.cols() : inner, trans_b ? inner : c.cols(), b.dtype, "gemm b");
    check_packed(packed_b, b.dtype, 1, inner, c.cols());
    run_on_host(stream, [this, operation, inner, real] {
        with_real(real, [&](auto element) {
            using Real = decltype(element);
            const Gemm& o = operation;
            cpu::with_result<Real>(o.c, o.accumulate, [&](const cpu::ProductResult<Real>& result) {
                multiply<Real>(threads_,
                               {.m = o.c.rows(),
                                .n = o.c.cols(),
                                .p = inner,
                                .a = operand(cpu::elements_of<Real>(o.a), o.a.cols(), o.trans_a),
                                .b = operand(cpu::elements_of<Real>(o.b), o.b.cols(), o.trans_b),
                                .c = result.c,
                                .c_row_stride = o.c.cols(),
                                .accumulate = o.accumulate,
                                .rounded_c = result.rounded,
                                .packed_b = cpu::elements_of<Real>(o.packed_b),
                                .work = result.work},
                               library_);
            });
        });
    });
}

PackedElements CpuBackend::packed_elements(Shape weight, DType dtype, i64 halves) const {
    if (by_library(dtype)) return {};
    const auto [groups, n, p] = matrices_of(weight);
    return {cpu::elements_of_copies(dtype, groups, p, n, halves),
            cpu::elements_of_copies(dtype, groups, n, p)};
}

i64 CpuBackend::addends_together(DType dtype) const {
    return dtype == DType::bf16 && bf16_products() == Bf16Products::tiles ? kAddendsOfTiles : 1;
}

void CpuBackend::pack(Stream& stream, const PackWeight& operation) {
    const DType stored = operation.weight.dtype;
    const i64 halves = operation.halves;
    expect_stored(stored, "pack");
    expect(operation.weight, stored, "pack weight");
    const PackedElements elements = packed_elements(operation.weight.shape, stored, halves);
    if (operation.transposed.data)
        expect(operation.transposed, elements.transposed, 1, stored, "pack transposed");
    if (operation.plain.data) expect(operation.plain, elements.plain, 1, stored, "pack plain");
    const auto [groups, n, p] = matrices_of(operation.weight.shape);
    MOESAIC_ASSERT(halves > 0 && n % halves == 0, "{} rows in {} halves", n, halves);
    if (by_library(stored)) return;
    run_on_host(stream, [this, operation, halves, groups = groups, n = n, p = p] {
        with_stored(operation.weight.dtype, [&](auto element) {
            using Stored = decltype(element);
            const auto copy_at = [](TensorView copy) { return copy.data ? copy.as<Stored>() : nullptr; };
            pack_weight<Stored>(threads_, {.weight = operation.weight.as<Stored>(),
                                           .groups = groups,
                                           .halves = halves,
                                           .n = n,
                                           .p = p,
                                           .transposed = copy_at(operation.transposed),
                                           .plain = copy_at(operation.plain),
                                           .past_caches = operation.past_caches});
        });
    });
}

void CpuBackend::attention(Stream& stream, const Attention& operation) {
    const AttentionShape shape = check_attention(operation);
    run_on_host(stream, [this, operation, shape] {
        with_stored(operation.q.dtype, [&](auto stored) {
            using Stored = decltype(stored);
            sequence_attention<Stored>(threads_,
                                       {.shape = shape,
                                        .q = operation.q.as<Stored>(),
                                        .k = operation.k.as<Stored>(),
                                        .v = operation.v.as<Stored>(),
                                        .out = operation.out.as<Stored>(),
                                        .log_sum_exp = operation.log_sum_exp.as<cpu::RealType<Stored>>(),
                                        .first_key = first_key_of(operation.first_key)});
        });
    });
}

void CpuBackend::attention_backward(Stream& stream, const AttentionGrad& operation) {
    const AttentionShape shape = check_attention(operation);
    const i64 width = operation.q.cols(), kv_width = operation.k.cols();
    expect(operation.d_out, shape.rows, width, operation.q.dtype, "attention d_out");
    expect(operation.dq, shape.rows, width, operation.q.dtype, "attention dq");
    expect(operation.dk, shape.rows, kv_width, operation.q.dtype, "attention dk");
    expect(operation.dv, shape.rows, kv_width, operation.q.dtype, "attention dv");
    run_on_host(stream, [this, operation, shape] {
        with_stored(operation.q.dtype, [&](auto stored) {
            using Stored = decltype(stored);
            sequence_attention_backward<Stored>(
                threads_, {.shape = shape,
                           .q = operation.q.as<Stored>(),
                           .k = operation.k.as<Stored>(),
                           .v = operation.v.as<Stored>(),
                           .out = operation.out.as<Stored>(),
                           .log_sum_exp = operation.log_sum_exp.as<cpu::RealType<Stored>>(),
                           .d_out = operation.d_out.as<Stored>(),
                           .dq = operation.dq.as<Stored>(),
                           .dk = operation.dk.as<Stored>(),
                           .dv = operation.dv.as<Stored>(),
                           .first_key = first_key_of(operation.first_key)});
        });
    });
}

}  // namespace moesaic
