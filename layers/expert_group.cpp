#include "layers/expert_group.h"

namespace moesaic {

ExpertGroup::ExpertGroup(const ModelSpec& spec, int layer, i64 first_expert, i64 experts, i64 capacity_rows,
                         ParameterStore& store)
    : width_(spec.width), hidden_(spec.hidden), capacity_rows_(capacity_rows) {
    const auto projection = [&](i64 expert, std::string_view kind, Shape shape) {
        Parameter parameter;
        parameter.name =
            block_parameter_name(layer, fmt::format("mlp.experts.{}.{}_proj.weight", expert, kind));
        parameter.shape = shape;
        parameter.placement = Placement::expert;
        parameter.layer = layer;
        parameter.expert = expert;
        parameter.init_std = spec.init_std;
        parameter.folds_itself = true;
        return parameter;
    };
    std::vector<Parameter> gate_up, down;
    for (i64 expert = first_expert; expert < first_expert + experts; ++expert) {
        gate_up.push_back(projection(expert, "gate", {hidden_, width_}));
        gate_up.push_back(projection(expert, "up", {hidden_, width_}));
        down.push_back(projection(expert, "down", {width_, hidden_}));
    }
    gate_up_ = store.declare(std::move(gate_up), {experts, 2 * hidden_, width_});
    down_ = store.declare(std::move(down), {experts, width_, hidden_});
    store.used_in_products(gate_up_);
    store.used_in_products(down_);
}

void ExpertGroup::allocate(StepContext& context, DType dtype, Saved& saved) const {
    saved.gate_up = context.backend.allocate({capacity_rows_, 2 * hidden_}, dtype);
    saved.hidden = context.backend.allocate({capacity_rows_, hidden_}, dtype);
}

void ExpertGroup::recompute(StepContext& context, ConstTensorView rows, std::span<const i64> rows_per_expert,
                            Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.rows();
    allocate(context, rows.dtype, saved);
    const TensorView gate_up = saved.gate_up.slice_rows(0, received);  // [R,2F]
    backend.grouped_gemm(context.compute, {.a = rows,
                                           .b = gate_up_.value(),
                                           .c = gate_up,
                                           .rows_per_group = rows_per_expert,
                                           .trans_b = true,
                                           .packed_b = gate_up_.packed_transposed()});
    backend.swiglu(context.compute, {.x = gate_up, .y = saved.hidden.slice_rows(0, received)});
}

void ExpertGroup::forward(StepContext& context, ConstTensorView rows, std::span<const i64> rows_per_expert,
                          TensorView out, Saved& saved) const {
    recompute(context, rows, rows_per_expert, saved);
    context.backend.grouped_gemm(context.compute, {.a = saved.hidden.slice_rows(0, rows.rows()),
                                                   .b = down_.value(),
                                                   .c = out,
                                                   .rows_per_group = rows_per_expert,
                                                   .trans_b = true,
                                                   .packed_b = down_.packed_transposed()});
}

void ExpertGroup::weight_gradient(StepContext& context, const Gradient& gradient,
                                  std::span<const i64> rows_per_source, Round round,
                                  std::vector<i64> open_source) {
    const auto experts = open_source.size();
    if (round.count == 1) {
        context.backend.grouped_gemm_weight_grad(context.compute, {.a = gradient.dy,
                                                                   .b = gradient.x,
                                                                   .c = gradient.weight.sum(),
                                                                   .rows_per_part = rows_per_source});
        return;
    }
    weight_gradient_of_round(context, gradient, rows_per_source, std::move(open_source));
    if (round.index + 1 == round.count)
        gradient.weight.fold_rows(context.compute, 0, static_cast<i64>(experts));
}

void ExpertGroup::weight_gradient_of_round(StepContext& context, const Gradient& gradient,
                                           std::span<const i64> rows_per_source,
                                           std::vector<i64> open_source) {
    const auto experts = static_cast<i64>(open_source.size());
    const i64 sources = static_cast<i64>(rows_per_source.size()) / experts;
    i64 first = 0;
    for (i64 segment = 0; segment < experts * sources; ++segment) {
        const i64 rows = rows_per_source[static_cast<std::size_t>(segment)];
        if (rows == 0) continue;
        const i64 expert = segment / sources, source = segment % sources;
        i64& open = open_source[static_cast<std::size_t>(expert)];
        if (open >= 0 && open != source) gradient.weight.fold_rows(context.compute, expert, 1);
        open = source;
        const TensorView grad = gradient.weight.grad().slice_rows(expert, 1);
        context.backend.gemm(context.compute, {.a = gradient.dy.slice_rows(first, rows),
                                               .b = gradient.x.slice_rows(first, rows),
                                               .c = grad.reshaped({grad.shape[1], grad.shape[2]}),
                                               .trans_a = true,
                                               .accumulate = true});
        first += rows;
    }
}

void ExpertGroup::backward(StepContext& context, ConstTensorView rows, std::span<const i64> rows_per_expert,
                           std::span<const i64> rows_per_source, ConstTensorView d_out, TensorView d_rows,
                           Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.rows();
    Tensor d_hidden_buffer = backend.allocate({capacity_rows_, hidden_}, rows.dtype);
    Tensor d_gate_up_buffer = backend.allocate({capacity_rows_, 2 * hidden_}, rows.dtype);
    const ConstTensorView hidden = saved.hidden.slice_rows(0, received);
    const TensorView d_hidden = d_hidden_buffer.slice_rows(0, received);    // [R,F]
    const TensorView d_gate_up = d_gate_up_buffer.slice_rows(0, received);  // [R,2F]

    backend.grouped_gemm(context.compute, {.a = d_out,
                                           .b = down_.value(),
                                           .c = d_hidden,
                                           .rows_per_group = rows_per_expert,
                                           .packed_b = down_.packed_plain()});
    saved.open_source.resize(rows_per_expert.size(), -1);
    weight_gradient(context, {down_, d_out, hidden}, rows_per_source, saved.round, saved.open_source);
    backend.swiglu_backward(context.compute,
                            {.x = saved.gate_up.slice_rows(0, received), .dy = d_hidden, .dx = d_gate_up});
    backend.grouped_gemm(context.compute, {.a = d_gate_up,
                                           .b = gate_up_.value(),
                                           .c = d_rows,
                                           .rows_per_group = rows_per_expert,
                                           .packed_b = gate_up_.packed_plain()});
    weight_gradient(context, {gate_up_, d_gate_up, rows}, rows_per_source, saved.round, saved.open_source);
    for (std::size_t expert = 0; expert < saved.open_source.size(); ++expert) {
        for (std::size_t source = 0, sources = rows_per_source.size() / saved.open_source.size();
             source < sources; ++source) {
            if (rows_per_source[expert * sources + source] > 0)
                saved.open_source[expert] = static_cast<i64>(source);
        }
    }
}

}  // namespace moesaic
