#include "runtime/cpu/checks.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/embedding.h"
#include "runtime/cpu/loss.h"
#include "runtime/cpu/norm.h"
#include "runtime/cpu/rope.h"
#include "runtime/cpu/squared_error.h"

namespace moesaic {

using cpu::expect;
using cpu::expect_real;
using cpu::expect_stored;
using cpu::Range;

namespace {

// Columns are shared in cache lines, so that two threads do not write to the same one.
constexpr i64 kColumnUnit = 16;

void check_norm(ConstTensorView x, ConstTensorView weight, ConstTensorView inverse_rms, ConstTensorView y) {
    const i64 extent = weight.elements();
    expect_stored(x.dtype, "rms_norm");
    expect(weight, x.dtype, "rms_norm weight");
    MOESAIC_ASSERT(extent > 0 && x.cols() % extent == 0, "rms_norm of {} in groups of {}", x.shape.text(),
                   extent);
    expect(x, x.dtype, "rms_norm x");
    expect(y, x.rows(), x.cols(), x.dtype, "rms_norm y");
    expect(inverse_rms, x.rows(), x.cols() / extent, accumulation_type(x.dtype), "rms_norm inverse_rms");
}

}  // namespace

void CpuBackend::rms_norm(Stream& stream, const RmsNorm& operation) {
    check_norm(operation.x, operation.weight, operation.inverse_rms, operation.y);
    run_on_host(stream, [this, operation] {
        share(operation.x.rows(), operation.x.cols(), [&](Range rows) { cpu::rms_norm(operation, rows); });
    });
}

void CpuBackend::rms_norm_backward(Stream& stream, const RmsNormGrad& operation) {
    check_norm(operation.x, operation.weight, operation.inverse_rms, operation.dy);
    expect(operation.dx, operation.x.rows(), operation.x.cols(), operation.x.dtype, "rms_norm dx");
    expect(operation.d_weight, accumulation_type(operation.x.dtype), "rms_norm d_weight");
    MOESAIC_ASSERT(operation.d_weight.elements() == operation.weight.elements(), "weight {} d_weight {}",
                   operation.weight.shape.text(), operation.d_weight.shape.text());
    run_on_host(stream, [this, operation] {
        const i64 extent = operation.weight.elements();
        share(
            extent, operation.x.elements() / extent,
            [&](Range columns) { cpu::rms_norm_grad_weight(operation, columns); }, kColumnUnit);
        share(operation.x.rows(), operation.x.cols(),
              [&](Range rows) { cpu::rms_norm_grad_x(operation, rows); });
    });
}

void CpuBackend::rope(Stream& stream, const Rope& operation) {
    const DType real = accumulation_type(operation.x.dtype);
    const i64 width = operation.heads * operation.head_dim;
    expect_stored(operation.x.dtype, "rope");
    expect(operation.x, operation.x.rows(), width, operation.x.dtype, "rope x");
    MOESAIC_ASSERT(operation.head_dim % 2 == 0 && operation.seq_len > 0 && operation.row_stride >= width,
                   "head_dim {} seq_len {} row_stride {} heads {}", operation.head_dim, operation.seq_len,
                   operation.row_stride, operation.heads);
    expect(operation.cosine, operation.seq_len, operation.head_dim / 2, real, "rope cosine");
    expect(operation.sine, operation.seq_len, operation.head_dim / 2, real, "rope sine");
    run_on_host(stream, [this, operation, width] {
        share(operation.x.rows(), width, [&](Range rows) { cpu::rope(operation, rows); });
    });
}

void CpuBackend::embedding(Stream& stream, const Embedding& operation) {
    const i64 rows = operation.index.elements();
    expect_stored(operation.table.dtype, "embedding");
    expect(operation.table, operation.table.dtype, "embedding table");
    expect(operation.index, DType::int32, "embedding index");
    expect(operation.y, rows, operation.table.cols(), operation.table.dtype, "embedding y");
    run_on_host(stream, [this, operation, rows] {
        share(rows, operation.y.cols(), [&](Range part) { cpu::embedding(operation, part); });
    });
}

void CpuBackend::embedding_backward(Stream& stream, const EmbeddingGrad& operation) {
    const i64 rows = operation.index.elements(), width = operation.d_table.cols();
    expect_stored(operation.dy.dtype, "embedding_backward");
    expect(operation.index, DType::int32, "embedding_backward index");
    expect(operation.dy, rows, width, operation.dy.dtype, "embedding_backward dy");
    expect(operation.d_table, accumulation_type(operation.dy.dtype), "embedding_backward d_table");
    run_on_host(stream, [this, operation, rows, width] {
        share(
            width, rows, [&](Range columns) { cpu::embedding_grad(operation, columns); }, kColumnUnit);
    });
}

void CpuBackend::cross_entropy(Stream& stream, const CrossEntropy& operation) {
    const i64 rows = operation.logits.rows();
    expect_real(operation.logits.dtype, "cross_entropy");
    expect(operation.logits, operation.logits.dtype, "cross_entropy logits");
    expect(operation.target, rows, 1, DType::int32, "cross_entropy target");
    expect(operation.loss, rows, 1, DType::f64, "cross_entropy loss");
    expect(operation.log_sum_exp, rows, 1, DType::f64, "cross_entropy log_sum_exp");
    if (operation.wrong.elements() > 0) {
        expect(operation.wrong, rows, 1, DType::int32, "cross_entropy wrong");
    }
    if (operation.margin.elements() > 0) {
        expect(operation.margin, rows, 1, DType::f64, "cross_entropy margin");
    }
    run_on_host(stream, [this, operation, rows] {
        share(rows, operation.logits.cols(), [&](Range part) { cpu::cross_entropy(operation, part); });
    });
}

void CpuBackend::cross_entropy_backward(Stream& stream, const CrossEntropyGrad& operation) {
    const i64 rows = operation.logits.rows(), vocabulary = operation.logits.cols();
    expect_real(operation.logits.dtype, "cross_entropy_backward");
    expect(operation.logits, operation.logits.dtype, "cross_entropy_backward logits");
    expect(operation.target, rows, 1, DType::int32, "cross_entropy_backward target");
    expect(operation.log_sum_exp, rows, 1, DType::f64, "cross_entropy_backward log_sum_exp");
    expect(operation.d_logits, rows, vocabulary, operation.logits.dtype, "cross_entropy_backward d_logits");
    run_on_host(stream, [this, operation, rows, vocabulary] {
        share(rows, vocabulary, [&](Range part) { cpu::cross_entropy_grad(operation, part); });
    });
}

void CpuBackend::squared_error(Stream& stream, const SquaredError& operation) {
    const i64 rows = operation.output.rows(), outputs = operation.output.cols();
    expect_real(operation.output.dtype, "squared_error");
    expect(operation.output, operation.output.dtype, "squared_error output");
    expect(operation.target, rows, outputs, DType::f64, "squared_error target");
    expect(operation.loss, rows, 1, DType::f64, "squared_error loss");
    run_on_host(stream, [this, operation, rows, outputs] {
        share(rows, outputs, [&](Range part) { cpu::squared_error(operation, part); });
    });
}

void CpuBackend::squared_error_backward(Stream& stream, const SquaredErrorGrad& operation) {
    const i64 rows = operation.output.rows(), outputs = operation.output.cols();
    expect_real(operation.output.dtype, "squared_error_backward");
    expect(operation.output, operation.output.dtype, "squared_error_backward output");
    expect(operation.target, rows, outputs, DType::f64, "squared_error_backward target");
    expect(operation.d_output, rows, outputs, operation.output.dtype, "squared_error_backward d_output");
    run_on_host(stream, [this, operation, rows, outputs] {
        share(rows, outputs, [&](Range part) { cpu::squared_error_grad(operation, part); });
    });
}

}  // namespace moesaic
