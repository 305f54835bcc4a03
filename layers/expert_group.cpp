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
}

void ExpertGroup::recompute(StepContext& context, ConstTensorView rows, std::span<const i64> rows_per_expert,
                            Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.rows();
    saved.gate_up = backend.allocate({capacity_rows_, 2 * hidden_}, rows.dtype);
    saved.hidden = backend.allocate({capacity_rows_, hidden_}, rows.dtype);
    const TensorView gate_up = saved.gate_up.slice_rows(0, received);  // [R,2F]
    backend.grouped_gemm(
        context.compute,
        {.a = rows, .b = gate_up_.value(), .c = gate_up, .rows_per_group = rows_per_expert, .trans_b = true});
    backend.swiglu(context.compute, {.x = gate_up, .y = saved.hidden.slice_rows(0, received)});
}

Tensor ExpertGroup::forward(StepContext& context, ConstTensorView rows, std::span<const i64> rows_per_expert,
                            Saved& saved) const {
    recompute(context, rows, rows_per_expert, saved);
    Tensor out = context.backend.allocate({capacity_rows_, width_}, rows.dtype);
    context.backend.grouped_gemm(context.compute, {.a = saved.hidden.slice_rows(0, rows.rows()),
                                                   .b = down_.value(),
                                                   .c = out.slice_rows(0, rows.rows()),
                                                   .rows_per_group = rows_per_expert,
                                                   .trans_b = true});
    return out;
}

Tensor ExpertGroup::backward(StepContext& context, ConstTensorView rows, std::span<const i64> rows_per_expert,
                             ConstTensorView d_out, Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.rows();
    Tensor d_hidden_buffer = backend.allocate({capacity_rows_, hidden_}, rows.dtype);
    Tensor d_gate_up_buffer = backend.allocate({capacity_rows_, 2 * hidden_}, rows.dtype);
    Tensor d_rows = backend.allocate({capacity_rows_, width_}, rows.dtype);
    const ConstTensorView hidden = saved.hidden.slice_rows(0, received);
    const TensorView d_hidden = d_hidden_buffer.slice_rows(0, received);    // [R,F]
    const TensorView d_gate_up = d_gate_up_buffer.slice_rows(0, received);  // [R,2F]

    backend.grouped_gemm(context.compute,
                         {.a = d_out, .b = down_.value(), .c = d_hidden, .rows_per_group = rows_per_expert});
    backend.grouped_gemm_weight_grad(
        context.compute, {.a = d_out, .b = hidden, .c = down_.grad(), .rows_per_group = rows_per_expert});
    backend.swiglu_backward(context.compute,
                            {.x = saved.gate_up.slice_rows(0, received), .dy = d_hidden, .dx = d_gate_up});
    backend.grouped_gemm(context.compute, {.a = d_gate_up,
                                           .b = gate_up_.value(),
                                           .c = d_rows.slice_rows(0, received),
                                           .rows_per_group = rows_per_expert});
    backend.grouped_gemm_weight_grad(
        context.compute,
        {.a = d_gate_up, .b = rows, .c = gate_up_.grad(), .rows_per_group = rows_per_expert});
    return d_rows;
}

}  // namespace moesaic
