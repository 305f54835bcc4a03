#include <numeric>
#include <span>
#include <vector>

#include "runtime/cpu/attention.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/checks.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/grouped_gemm.h"

namespace moesaic {

using cpu::expect;
using cpu::expect_real;

namespace {

/// Calls `kernel` with a value of the real type that `dtype` stands for.
template <class Kernel>
void for_real(DType dtype, Kernel&& kernel) {
    if (dtype == DType::f32) {
        kernel(float{});
    } else {
        kernel(double{});
    }
}

void check_groups(std::span<const i64> rows_per_group, i64 groups, i64 rows) {
    const i64 sum = std::accumulate(rows_per_group.begin(), rows_per_group.end(), i64{0});
    MOESAIC_ASSERT(static_cast<i64>(rows_per_group.size()) == groups && sum <= rows,
                   "{} groups of {} rows in all, operands for {} groups and {} rows", rows_per_group.size(),
                   sum, groups, rows);
}

/// Runs `work(rows_per_group)`, with a copy of the numbers when it has to wait: their memory may be gone
/// then.
template <class Work>
void run_with_groups(Stream& stream, std::span<const i64> rows_per_group, Work&& work) {
    if (static_cast<HostStream&>(stream).inline_execution()) {
        work(rows_per_group);
    } else {
        run_on_host(stream, [work, copy = std::vector<i64>(rows_per_group.begin(), rows_per_group.end())] {
            work(std::span<const i64>(copy));
        });
    }
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
    }
    return {rows, operation.heads, operation.kv_heads, operation.head_dim, operation.seq_len};
}

}  // namespace

void CpuBackend::gemm(Stream& stream, const Gemm& operation) {
    const auto& [a, b, c, trans_a, trans_b, accumulate] = operation;
    const i64 inner = trans_a ? a.rows() : a.cols();
    if (cpu::any_bf16(a, b, c)) return cpu::gemm_in_f32(*this, stream, operation);
    expect_real(c.dtype, "gemm");
    expect(c, c.dtype, "gemm c");
    expect(a, trans_a ? inner : c.rows(), trans_a ? c.rows() : inner, c.dtype, "gemm a");
    expect(b, trans_b ? c.cols() : inner, trans_b ? inner : c.cols(), c.dtype, "gemm b");
    run_on_host(stream, [this, operation, inner] {
        for_real(operation.c.dtype, [&](auto real) {
            using Real = decltype(real);
            multiply<Real>(threads_,
                           {.m = operation.c.rows(),
                            .n = operation.c.cols(),
                            .p = inner,
                            .a = operand(operation.a.as<Real>(), operation.a.cols(), operation.trans_a),
                            .b = operand(operation.b.as<Real>(), operation.b.cols(), operation.trans_b),
                            .c = operation.c.as<Real>(),
                            .c_row_stride = operation.c.cols(),
                            .accumulate = operation.accumulate});
        });
    });
}

void CpuBackend::grouped_gemm(Stream& stream, const GroupedGemm& operation) {
    const i64 rows = operation.c.rows(), width = operation.c.cols(), inner = operation.a.cols();
    const DType real = operation.c.dtype;
    if (cpu::any_bf16(operation.a, operation.b, operation.c))
        return cpu::grouped_gemm_in_f32(*this, stream, operation);
    expect_real(real, "grouped_gemm");
    expect(operation.c, real, "grouped_gemm c");
    expect(operation.a, rows, inner, real, "grouped_gemm a");
    expect(operation.b, operation.b.rows(), inner * width, real, "grouped_gemm b");
    check_groups(operation.rows_per_group, operation.b.rows(), rows);
    auto work = [this, operation, width, inner](std::span<const i64> rows_per_group) {
        for_real(operation.c.dtype, [&](auto element) {
            using Real = decltype(element);
            multiply_groups<Real>(threads_, {.rows_per_group = rows_per_group,
                                             .n = width,
                                             .p = inner,
                                             .a = operation.a.as<Real>(),
                                             .b = operation.b.as<Real>(),
                                             .c = operation.c.as<Real>(),
                                             .trans_b = operation.trans_b,
                                             .accumulate = operation.accumulate});
        });
    };
    run_with_groups(stream, operation.rows_per_group, work);
}

void CpuBackend::grouped_gemm_weight_grad(Stream& stream, const GroupedGemmWeightGrad& operation) {
    const i64 rows = operation.a.rows(), height = operation.a.cols(), width = operation.b.cols();
    const DType real = operation.c.dtype;
    if (cpu::any_bf16(operation.a, operation.b, operation.c))
        return cpu::grouped_gemm_weight_grad_in_f32(*this, stream, operation);
    expect_real(real, "grouped_gemm_weight_grad");
    expect(operation.a, real, "grouped_gemm_weight_grad a");
    expect(operation.b, rows, width, real, "grouped_gemm_weight_grad b");
    expect(operation.c, operation.c.rows(), height * width, real, "grouped_gemm_weight_grad c");
    check_groups(operation.rows_per_group, operation.c.rows(), rows);
    auto work = [this, operation, height, width](std::span<const i64> rows_per_group) {
        for_real(operation.c.dtype, [&](auto element) {
            using Real = decltype(element);
            accumulate_weight_grads<Real>(threads_, {.rows_per_group = rows_per_group,
                                                     .m = height,
                                                     .n = width,
                                                     .a = operation.a.as<Real>(),
                                                     .b = operation.b.as<Real>(),
                                                     .c = operation.c.as<Real>()});
        });
    };
    run_with_groups(stream, operation.rows_per_group, work);
}

void CpuBackend::attention(Stream& stream, const Attention& operation) {
    if (operation.q.dtype == DType::bf16) return cpu::attention_in_f32(*this, stream, operation);
    const AttentionShape shape = check_attention(operation);
    run_on_host(stream, [this, operation, shape] {
        for_real(operation.q.dtype, [&](auto real) {
            using Real = decltype(real);
            causal_attention<Real>(threads_, {.shape = shape,
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
        for_real(operation.q.dtype, [&](auto real) {
            using Real = decltype(real);
            causal_attention_backward<Real>(threads_, {.shape = shape,
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
