#include "runtime/cpu/capacity.h"
#include "runtime/cpu/checks.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/loss.h"
#include "runtime/cpu/router.h"
#include "runtime/cpu/routing.h"
#include "runtime/cpu/sigmoid_gate.h"
#include "runtime/route_in_turn.h"

namespace moesaic {

using cpu::expect;
using cpu::expect_real;
using cpu::expect_stored;
using cpu::Range;

void CpuBackend::row_softmax(Stream& stream, const RowSoftmax& operation) {
    const i64 rows = operation.logits.rows(), experts = operation.logits.cols();
    const DType real = operation.logits.dtype;
    expect_real(real, "row_softmax");
    expect(operation.logits, real, "row_softmax logits");
    expect(operation.probability, rows, experts, real, "row_softmax probability");
    expect(operation.log_sum_exp, rows, 1, real, "row_softmax log_sum_exp");
    run_on_host(stream, [this, operation, rows, experts] {
        share(rows, experts, [&](Range part) { cpu::row_softmax(operation, part); });
    });
}

void CpuBackend::top_k(Stream& stream, const TopK& operation) {
    const i64 rows = operation.scores.rows(), choices = operation.index.cols();
    const DType real = operation.scores.dtype;
    expect_real(real, "top_k");
    expect(operation.scores, real, "top_k scores");
    expect(operation.index, rows, choices, DType::int32, "top_k index");
    expect(operation.value, rows, choices, real, "top_k value");
    MOESAIC_ASSERT(choices >= 1 && choices <= operation.scores.cols(), "{} of {} scores", choices,
                   operation.scores.cols());
    const i64 columns = operation.scores.cols(), groups = operation.groups;
    MOESAIC_ASSERT(groups >= 1 && columns % groups == 0 && operation.top_groups >= 1 &&
                       operation.top_groups <= groups && operation.top_groups * (columns / groups) >= choices,
                   "{} of {} groups for {} of {} scores", operation.top_groups, groups, choices, columns);
    if (operation.bias.elements() > 0) expect(operation.bias, columns, 1, real, "top_k bias");
    run_on_host(stream, [this, operation, rows] {
        share(rows, operation.scores.cols(), [&](Range part) { cpu::top_k(operation, part); });
    });
}

void CpuBackend::router_sums(Stream& stream, const RouterSums& operation) {
    const i64 tokens = operation.index.rows(), experts = operation.counts.cols();
    const i64 choices = operation.index.cols(), size = operation.rows_per_object;
    const DType real = operation.weight.dtype;
    expect_real(real, "router_sums");
    MOESAIC_ASSERT(size >= 1, "balance objects of {} rows", size);
    const i64 objects = (tokens + size - 1) / size;
    const auto expect_unless_empty = [&](ConstTensorView view, i64 columns, std::string_view name) {
        if (view.elements() > 0) expect(view, tokens, columns, real, name);
    };
    expect(operation.index, tokens, choices, DType::int32, "router_sums index");
    expect(operation.weight, tokens, choices, real, "router_sums weight");
    expect_unless_empty(operation.probability, experts, "router_sums probability");
    expect_unless_empty(operation.load_probability, experts, "router_sums load_probability");
    expect_unless_empty(operation.log_sum_exp, 1, "router_sums log_sum_exp");
    expect(operation.counts, objects, experts, DType::int64, "router_sums counts");
    expect(operation.balance_counts, objects, experts, DType::int64, "router_sums balance_counts");
    expect(operation.probability_sum, objects, experts, DType::f64, "router_sums probability_sum");
    expect(operation.weight_sum, objects, experts, DType::f64, "router_sums weight_sum");
    expect(operation.load_sum, objects, experts, DType::f64, "router_sums load_sum");
    expect(operation.z_sum, objects, 1, DType::f64, "router_sums z_sum");
    run_on_host(stream, [this, operation, objects, size, experts] {
        share(objects, size * experts, [&](Range part) { cpu::router_sums(operation, part); });
    });
}

void CpuBackend::route(Stream& stream, const Route& operation) {
    route_in_turn(*this, stream, operation);
}

void CpuBackend::router_backward(Stream& stream, const RouterGrad& operation) {
    const i64 tokens = operation.probability.rows(), experts = operation.probability.cols();
    const i64 choices = operation.index.cols(), size = operation.rows_per_object;
    const i64 objects = operation.balance_factor.rows();
    const DType real = operation.probability.dtype;
    expect_real(real, "router_backward");
    expect(operation.probability, real, "router_backward probability");
    expect(operation.log_sum_exp, tokens, 1, real, "router_backward log_sum_exp");
    if (operation.sigmoid_logits.elements() > 0)
        expect(operation.sigmoid_logits, tokens, experts, real, "router_backward sigmoid_logits");
    expect(operation.index, tokens, choices, DType::int32, "router_backward index");
    expect(operation.weight, tokens, choices, real, "router_backward weight");
    expect(operation.d_weight, tokens, choices, real, "router_backward d_weight");
    expect(operation.d_logits, tokens, experts, real, "router_backward d_logits");
    MOESAIC_ASSERT(size >= 1, "balance objects of {} rows", size);
    if (operation.balance_factor.elements() > 0) {
        expect(operation.balance_factor, objects, experts, DType::f64, "router_backward balance_factor");
        MOESAIC_ASSERT(objects == 1 || objects * size >= tokens, "balance factors {} for {} rows by {}",
                       operation.balance_factor.shape.text(), tokens, size);
    }
    run_on_host(stream, [this, operation, tokens, experts] {
        share(tokens, experts, [&](Range part) { cpu::router_grad(operation, part); });
    });
}

void CpuBackend::router_confidence(Stream& stream, const RouterConfidence& operation) {
    const i64 tokens = operation.probability.rows(), size = operation.rows_per_part;
    const DType real = operation.probability.dtype;
    expect_real(real, "router_confidence");
    MOESAIC_ASSERT(size >= 1 && operation.weight.cols() >= 1, "parts of {} rows, weight {}", size,
                   operation.weight.shape.text());
    const i64 parts = (tokens + size - 1) / size;
    expect(operation.probability, real, "router_confidence probability");
    expect(operation.weight, tokens, operation.weight.cols(), real, "router_confidence weight");
    expect(operation.entropy_sum, parts, 1, DType::f64, "router_confidence entropy_sum");
    expect(operation.first_weight_sum, parts, 1, DType::f64, "router_confidence first_weight_sum");
    run_on_host(stream, [this, operation, parts, size] {
        share(parts, size * operation.probability.cols(),
              [&](Range part) { cpu::router_confidence(operation, part); });
    });
}

void CpuBackend::sigmoid_gate(Stream& stream, const SigmoidGate& operation) {
    const i64 rows = operation.y.rows(), width = operation.y.cols();
    const DType stored = operation.y.dtype;
    expect_stored(stored, "sigmoid_gate");
    expect(operation.logit, rows, 1, accumulation_type(stored), "sigmoid_gate logit");
    expect(operation.rows, rows, width, stored, "sigmoid_gate rows");
    run_on_host(stream, [this, operation, rows, width] {
        share(rows, width, [&](Range part) { cpu::sigmoid_gate(operation, part); });
    });
}

void CpuBackend::sigmoid_gate_backward(Stream& stream, const SigmoidGateGrad& operation) {
    const i64 rows = operation.dy.rows(), width = operation.dy.cols();
    const DType stored = operation.dy.dtype;
    expect_stored(stored, "sigmoid_gate_backward");
    expect(operation.logit, rows, 1, accumulation_type(stored), "sigmoid_gate_backward logit");
    expect(operation.rows, rows, width, stored, "sigmoid_gate_backward rows");
    expect(operation.d_rows, rows, width, stored, "sigmoid_gate_backward d_rows");
    expect(operation.d_logit, rows, 1, accumulation_type(stored), "sigmoid_gate_backward d_logit");
    run_on_host(stream, [this, operation, rows, width] {
        share(rows, width, [&](Range part) { cpu::sigmoid_gate_grad(operation, part); });
    });
}

void CpuBackend::add_by_choice(Stream& stream, const AddByChoice& operation) {
    const i64 tokens = operation.index.rows(), choices = operation.index.cols();
    const i64 objects = operation.factor.rows(), size = operation.rows_per_object;
    expect_real(operation.d_weight.dtype, "add_by_choice");
    expect(operation.factor, DType::f64, "add_by_choice factor");
    expect(operation.index, DType::int32, "add_by_choice index");
    expect(operation.d_weight, tokens, choices, operation.d_weight.dtype, "add_by_choice d_weight");
    MOESAIC_ASSERT(size >= 1 && (objects == 1 || objects * size >= tokens), "factors {} for {} rows by {}",
                   operation.factor.shape.text(), tokens, size);
    run_on_host(stream, [this, operation, tokens, choices] {
        share(tokens, choices, [&](Range part) { cpu::add_by_choice(operation, part); });
    });
}

void CpuBackend::limit_choices(Stream& stream, const LimitChoices& operation) {
    const i64 tokens = operation.index.rows(), choices = operation.index.cols();
    const i64 size = operation.rows_per_object;
    expect(operation.index, DType::int32, "limit_choices index");
    expect(operation.kept, tokens, choices, DType::int32, "limit_choices kept");
    if (operation.priority.elements() > 0) {
        expect_real(operation.priority.dtype, "limit_choices");
        expect(operation.priority, tokens, operation.experts, operation.priority.dtype,
               "limit_choices priority");
    }
    MOESAIC_ASSERT(size >= 1 && operation.capacity >= 1 && operation.experts >= 1,
                   "capacity {} of {} rows, {} experts", operation.capacity, size, operation.experts);
    const i64 objects = (tokens + size - 1) / size;
    run_on_host(stream, [this, operation, objects, size, choices] {
        share(objects, 4 * size * choices, [&](Range part) { cpu::limit_choices(operation, part); });
    });
}

void CpuBackend::rescale_kept(Stream& stream, const RescaleKept& operation) {
    const i64 tokens = operation.index.rows(), choices = operation.index.cols();
    const DType real = operation.weight.dtype;
    expect_real(real, "rescale_kept");
    expect(operation.weight, tokens, choices, real, "rescale_kept weight");
    expect(operation.index, DType::int32, "rescale_kept index");
    expect(operation.kept, tokens, choices, DType::int32, "rescale_kept kept");
    expect(operation.out, tokens, choices, real, "rescale_kept out");
    run_on_host(stream, [this, operation, tokens, choices] {
        share(tokens, choices, [&](Range part) { cpu::rescale_kept(operation, part); });
    });
}

void CpuBackend::rescale_kept_backward(Stream& stream, const RescaleKeptGrad& operation) {
    const i64 tokens = operation.index.rows(), choices = operation.index.cols();
    const DType real = operation.weight.dtype;
    expect_real(real, "rescale_kept_backward");
    expect(operation.weight, tokens, choices, real, "rescale_kept_backward weight");
    expect(operation.index, DType::int32, "rescale_kept_backward index");
    expect(operation.kept, tokens, choices, DType::int32, "rescale_kept_backward kept");
    expect(operation.d_out, tokens, choices, real, "rescale_kept_backward d_out");
    expect(operation.d_weight, tokens, choices, real, "rescale_kept_backward d_weight");
    run_on_host(stream, [this, operation, tokens, choices] {
        share(tokens, choices, [&](Range part) { cpu::rescale_kept_grad(operation, part); });
    });
}

void CpuBackend::group_by_key(Stream& stream, const GroupByKey& operation) {
    expect(operation.key, DType::int32, "group_by_key key");
    expect(operation.order, DType::int32, "group_by_key order");
    expect(operation.counts, DType::int64, "group_by_key counts");
    MOESAIC_ASSERT(operation.order.elements() == operation.key.elements(), "key {} order {}",
                   operation.key.shape.text(), operation.order.shape.text());
    run_on_host(stream, [operation] { cpu::group_by_key(operation); });
}

void CpuBackend::gather_rows(Stream& stream, const GatherRows& operation) {
    const i64 rows = operation.index.elements(), width = operation.in.cols();
    if (operation.accumulate) expect_stored(operation.in.dtype, "gather_rows");
    expect(operation.in, operation.out.dtype, "gather_rows in");
    expect(operation.index, DType::int32, "gather_rows index");
    const bool placed = operation.place.shape.rank() > 0;
    expect(operation.out, placed ? operation.out.rows() : rows, width, operation.out.dtype,
           "gather_rows out");
    if (placed) expect(operation.place, rows, 1, DType::int32, "gather_rows place");
    MOESAIC_ASSERT(!(placed && operation.accumulate), "gather_rows adds to rows in order only");
    run_on_host(stream, [this, operation, rows, width] {
        share(rows, width, [&](Range part) { cpu::gather_rows(operation, part); });
    });
}

void CpuBackend::combine_rows(Stream& stream, const CombineRows& operation) {
    const i64 tokens = operation.slot.rows(), choices = operation.slot.cols();
    const DType stored = operation.y.dtype;
    expect_stored(stored, "combine_rows");
    expect(operation.slot, DType::int32, "combine_rows slot");
    expect(operation.rows, operation.rows.rows(), operation.y.cols(), stored, "combine_rows rows");
    expect(operation.y, tokens, operation.y.cols(), stored, "combine_rows y");
    if (operation.weight.elements() > 0) {
        expect(operation.weight, tokens, choices, accumulation_type(stored), "combine_rows weight");
    }
    run_on_host(stream, [this, operation, tokens, choices] {
        share(tokens, choices * operation.y.cols(), [&](Range part) { cpu::combine_rows(operation, part); });
    });
}

void CpuBackend::combine_rows_backward(Stream& stream, const CombineRowsGrad& operation) {
    const i64 tokens = operation.slot.rows(), choices = operation.slot.cols();
    const i64 width = operation.dy.cols(), slots = operation.d_rows.rows();
    const DType stored = operation.dy.dtype, real = accumulation_type(stored);
    expect_stored(stored, "combine_rows_backward");
    expect(operation.slot, DType::int32, "combine_rows_backward slot");
    expect(operation.dy, tokens, width, stored, "combine_rows_backward dy");
    expect(operation.d_rows, slots, width, stored, "combine_rows_backward d_rows");
    if (operation.weight.elements() > 0) {
        expect(operation.weight, tokens, choices, real, "combine_rows_backward weight");
    }
    if (operation.d_weight.elements() > 0) {
        expect(operation.d_weight, tokens, choices, real, "combine_rows_backward d_weight");
        expect(operation.rows, slots, width, stored, "combine_rows_backward rows");
    }
    run_on_host(stream, [this, operation, tokens, choices, width] {
        share(tokens, choices * width, [&](Range part) { cpu::combine_rows_grad(operation, part); });
    });
}

}  // namespace moesaic
