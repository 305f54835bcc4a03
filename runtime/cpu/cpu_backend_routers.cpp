#include "runtime/cpu/checks.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/element_types.h"
#include "runtime/cpu/router_noise.h"
#include "runtime/cpu/router_scores.h"

namespace moesaic {

using cpu::expect;
using cpu::expect_real;
using cpu::expect_stored;
using cpu::Range;

namespace {

i64 objects_of(i64 rows, i64 rows_per_object, std::string_view name) {
    MOESAIC_ASSERT(rows_per_object >= 1, "{}: objects of {} rows", name, rows_per_object);
    return (rows + rows_per_object - 1) / rows_per_object;
}

/// [1,E] or one row for each object of `rows` tokens.
void expect_factor(ConstTensorView factor, i64 rows, i64 rows_per_object, i64 experts,
                   std::string_view name) {
    expect(factor, factor.rows(), experts, DType::f64, name);
    MOESAIC_ASSERT(factor.rows() == 1 || factor.rows() == objects_of(rows, rows_per_object, name),
                   "{}: {} for {} rows in objects of {}", name, factor.shape.text(), rows, rows_per_object);
}

}  // namespace

void CpuBackend::fill(Stream& stream, double value, TensorView y) {
    expect_real(y.dtype, "fill");
    run_on_host(stream, [this, value, y] {
        cpu::with_real(y.dtype, [&](auto real) {
            using Real = decltype(real);
            share(y.elements(), 1, [&](Range part) {
                std::fill(y.as<Real>() + part.first, y.as<Real>() + part.last, static_cast<Real>(value));
            });
        });
    });
}

void CpuBackend::gather_choices(Stream& stream, const GatherChoices& operation) {
    const i64 rows = operation.scores.rows(), choices = operation.index.cols();
    const DType real = operation.scores.dtype;
    expect_real(real, "gather_choices");
    expect(operation.index, rows, choices, DType::int32, "gather_choices index");
    expect(operation.value, rows, choices, real, "gather_choices value");
    run_on_host(stream, [this, operation, rows, choices] {
        share(rows, choices, [&](Range part) { cpu::gather_choices(operation, part); });
    });
}

void CpuBackend::normalize_rows(Stream& stream, const NormalizeRows& operation) {
    expect_real(operation.x.dtype, "normalize_rows");
    run_on_host(stream, [this, operation] {
        share(operation.x.rows(), operation.x.cols(),
              [&](Range part) { cpu::normalize_rows(operation, part); });
    });
}

void CpuBackend::sigmoid_scores(Stream& stream, const SigmoidScores& operation) {
    const i64 rows = operation.logits.rows(), experts = operation.logits.cols();
    const DType real = operation.logits.dtype;
    expect_real(real, "sigmoid_scores");
    expect(operation.score, rows, experts, real, "sigmoid_scores score");
    expect(operation.probability, rows, experts, real, "sigmoid_scores probability");
    expect(operation.log_sum_exp, rows, 1, real, "sigmoid_scores log_sum_exp");
    run_on_host(stream, [this, operation, rows, experts] {
        share(rows, experts, [&](Range part) { cpu::sigmoid_scores(operation, part); });
    });
}

void CpuBackend::choose_tokens(Stream& stream, const ChooseTokens& operation) {
    const i64 rows = operation.scores.rows(), experts = operation.scores.cols();
    const i64 objects = objects_of(rows, operation.rows_per_object, "choose_tokens");
    expect_real(operation.scores.dtype, "choose_tokens");
    expect(operation.index, rows, experts, DType::int32, "choose_tokens index");
    MOESAIC_ASSERT(operation.take >= 1, "choose_tokens: {} tokens an expert", operation.take);
    run_on_host(stream, [this, operation, objects, experts] {
        share(objects, operation.rows_per_object * experts,
              [&](Range part) { cpu::choose_tokens(operation, part); });
    });
}

void CpuBackend::sinkhorn(Stream& stream, const Sinkhorn& operation) {
    const i64 rows = operation.logits.rows(), experts = operation.logits.cols();
    const i64 objects = objects_of(rows, operation.rows_per_object, "sinkhorn");
    expect_real(operation.logits.dtype, "sinkhorn");
    expect(operation.scores, rows, experts, operation.logits.dtype, "sinkhorn scores");
    expect(operation.work, rows, experts, DType::f64, "sinkhorn work");
    run_on_host(stream, [this, operation, objects, experts] {
        share(objects, operation.rows_per_object * experts,
              [&](Range part) { cpu::sinkhorn(operation, part); });
    });
}

void CpuBackend::random_fill(Stream& stream, const RandomFill& operation) {
    expect_real(operation.values.dtype, "random_fill");
    run_on_host(stream, [this, operation] {
        share(operation.values.elements(), 16, [&](Range part) { cpu::random_fill(operation, part); });
    });
}

void CpuBackend::multiply_elements(Stream& stream, const MultiplyElements& operation) {
    const i64 rows = operation.y.rows(), columns = operation.y.cols();
    expect_stored(operation.y.dtype, "multiply_elements");
    expect(operation.x, rows, columns, operation.y.dtype, "multiply_elements x");
    expect(operation.factor, rows, columns, accumulation_type(operation.y.dtype), "multiply_elements factor");
    run_on_host(stream, [this, operation] {
        share(operation.y.elements(), 1, [&](Range part) { cpu::multiply_elements(operation, part); });
    });
}

void CpuBackend::noisy_logits(Stream& stream, const NoisyLogits& operation) {
    const i64 rows = operation.clean.rows(), experts = operation.clean.cols();
    const DType real = operation.clean.dtype;
    expect_real(real, "noisy_logits");
    expect(operation.spread, rows, experts, real, "noisy_logits spread");
    expect(operation.noise, rows, experts, real, "noisy_logits noise");
    expect(operation.logits, rows, experts, real, "noisy_logits logits");
    run_on_host(stream, [this, operation, rows, experts] {
        share(rows, experts, [&](Range part) { cpu::noisy_logits(operation, part); });
    });
}

void CpuBackend::noisy_logits_backward(Stream& stream, const NoisyLogitsGrad& operation) {
    const i64 rows = operation.spread.rows(), experts = operation.spread.cols();
    const DType real = operation.spread.dtype;
    expect_real(real, "noisy_logits_backward");
    expect(operation.noise, rows, experts, real, "noisy_logits_backward noise");
    expect(operation.d_logits, rows, experts, real, "noisy_logits_backward d_logits");
    expect(operation.d_clean, rows, experts, real, "noisy_logits_backward d_clean");
    expect(operation.d_spread, rows, experts, real, "noisy_logits_backward d_spread");
    run_on_host(stream, [this, operation, rows, experts] {
        share(rows, experts, [&](Range part) { cpu::noisy_logits_grad(operation, part); });
    });
}

void CpuBackend::noisy_load(Stream& stream, const NoisyLoad& operation) {
    const i64 rows = operation.clean.rows(), experts = operation.clean.cols();
    const DType real = operation.clean.dtype;
    expect_real(real, "noisy_load");
    expect(operation.spread, rows, experts, real, "noisy_load spread");
    expect(operation.logits, rows, experts, real, "noisy_load logits");
    expect(operation.ranked, rows, operation.ranked.cols(), DType::int32, "noisy_load ranked");
    expect(operation.probability, rows, experts, real, "noisy_load probability");
    run_on_host(stream, [this, operation, rows, experts] {
        share(rows, experts, [&](Range part) { cpu::noisy_load(operation, part); });
    });
}

void CpuBackend::noisy_load_backward(Stream& stream, const NoisyLoadGrad& operation) {
    const i64 rows = operation.clean.rows(), experts = operation.clean.cols();
    const DType real = operation.clean.dtype;
    expect_real(real, "noisy_load_backward");
    expect(operation.spread, rows, experts, real, "noisy_load_backward spread");
    expect(operation.logits, rows, experts, real, "noisy_load_backward logits");
    expect(operation.ranked, rows, operation.ranked.cols(), DType::int32, "noisy_load_backward ranked");
    expect_factor(operation.factor, rows, operation.rows_per_object, experts, "noisy_load_backward factor");
    expect(operation.d_clean, rows, experts, real, "noisy_load_backward d_clean");
    expect(operation.d_spread, rows, experts, real, "noisy_load_backward d_spread");
    expect(operation.d_logits, rows, experts, real, "noisy_load_backward d_logits");
    run_on_host(stream, [this, operation, rows, experts] {
        share(rows, experts, [&](Range part) { cpu::noisy_load_grad(operation, part); });
    });
}

void CpuBackend::prototype_logits(Stream& stream, const PrototypeLogits& operation) {
    const i64 rows = operation.x.rows(), width = operation.x.cols(), experts = operation.prototype.rows();
    expect_stored(operation.x.dtype, "prototype_logits");
    expect(operation.prototype, experts, width, operation.x.dtype, "prototype_logits prototype");
    expect(operation.logits, rows, experts, accumulation_type(operation.x.dtype), "prototype_logits logits");
    run_on_host(stream, [this, operation, rows, width, experts] {
        share(rows, width * experts, [&](Range part) { cpu::prototype_logits(operation, part); });
    });
}

void CpuBackend::prototype_logits_backward(Stream& stream, const PrototypeLogitsGrad& operation) {
    const i64 rows = operation.x.rows(), width = operation.x.cols(), experts = operation.prototype.rows();
    const DType stored = operation.x.dtype, real = accumulation_type(stored);
    expect_stored(stored, "prototype_logits_backward");
    expect(operation.prototype, experts, width, stored, "prototype_logits_backward prototype");
    expect(operation.d_logits, rows, experts, real, "prototype_logits_backward d_logits");
    expect(operation.dx, rows, width, stored, "prototype_logits_backward dx");
    expect(operation.d_prototype, experts, width, real, "prototype_logits_backward d_prototype");
    run_on_host(stream, [this, operation, rows, width, experts] {
        share(rows, width * experts, [&](Range part) { cpu::prototype_input_grad(operation, part); });
        share(experts, width * rows, [&](Range part) { cpu::prototype_grad(operation, part); });
    });
}

void CpuBackend::balance_bias(Stream& stream, const BalanceBias& operation) {
    expect_real(operation.bias.dtype, "balance_bias");
    expect(operation.counts, DType::int64, "balance_bias counts");
    MOESAIC_ASSERT(operation.counts.elements() == operation.bias.elements(), "{} counts, {} biases",
                   operation.counts.elements(), operation.bias.elements());
    run_on_host(stream, [operation] { cpu::balance_bias(operation); });
}

}  // namespace moesaic
