#include "layers/cell_experts.h"

#include <algorithm>
#include <cmath>

namespace moesaic {

i64 first_cell_of(const Mesh& mesh) {
    const auto own = mesh.own_experts(-1);
    return own.empty() ? 0 : own.front();
}

CellExperts::CellExperts(const ModelSpec& spec, const Mesh& mesh, ParameterStore& store)
    : experts_(spec.experts),
      first_expert_(first_cell_of(mesh)),
      local_experts_(mesh.local_experts()),
      hidden_(spec.width),
      outputs_(spec.head_outputs()),
      activation_(spec.activation) {
    MOESAIC_ASSERT(activation_halves(activation_) == 1, "a gated activation in a MoMLP");
    for (int layer = 0; layer <= spec.layers; ++layer) declare(spec, store, layer);
    store.declare_buffer("model.prototypes", {experts_, spec.features - 1});
}

/// Hidden layer `layer`, or the outputs behind the last.
void CellExperts::declare(const ModelSpec& spec, ParameterStore& store, int layer) {
    const bool is_output = layer == spec.layers;
    const i64 inputs = layer == 0 ? spec.features : hidden_, outputs = is_output ? outputs_ : hidden_;
    const std::string place = is_output ? "output" : fmt::format("layers.{}", layer);
    const auto declared = [&](std::string_view kind, Shape shape) {
        std::vector<Parameter> parameters;
        for (i64 expert = first_expert_; expert < first_expert_ + local_experts_; ++expert) {
            Parameter& parameter = parameters.emplace_back();
            parameter.name = fmt::format("model.experts.{}.{}.{}", expert, place, kind);
            parameter.shape = shape;
            parameter.placement = Placement::expert;
            parameter.expert = expert;
            parameter.folds_itself = true;
            // He et al. 2015, eq. 10: variances stay alike from layer to layer of rectified units.
            if (kind == "weight") parameter.init_std = std::sqrt(2.0 / static_cast<double>(inputs));
            if (kind == "act_fn") parameter.init_constant = kInitialSlope;
        }
        return parameters;
    };
    Layer& one = layers_.emplace_back();
    one.weight = store.declare(declared("weight", {outputs, inputs}), {local_experts_, outputs, inputs});
    if (layer > 0) one.bias = store.declare(declared("bias", {outputs}), {local_experts_, outputs, 1});
    if (!is_output && activation_ == ActivationKind::prelu)
        one.slope = store.declare(declared("act_fn", {1}), {local_experts_});
    store.used_in_products(one.weight);
    store.starts_sum(one.weight);
}

Tensor CellExperts::linear(StepContext& context, ConstTensorView x, const CellRows& cells, const Layer& layer,
                           const Saved& saved) const {
    Tensor y = context.backend.allocate({x.rows(), layer.weight.value().shape[1]}, x.dtype);
    context.backend.grouped_gemm(context.compute, {.a = x,
                                                   .b = layer.weight.value(),
                                                   .c = y,
                                                   .rows_per_group = cells.rows_per_expert,
                                                   .trans_b = true,
                                                   .packed_b = layer.weight.packed_transposed()});
    if (!layer.bias) return y;
    context.backend.grouped_gemm(context.compute, {.a = saved.ones,
                                                   .b = layer.bias.value(),
                                                   .c = y,
                                                   .rows_per_group = cells.rows_per_expert,
                                                   .trans_b = true,
                                                   .accumulate = true});
    return y;
}

void CellExperts::add_gradients(StepContext& context, ConstTensorView x, const CellRows& cells,
                                const Layer& layer, ConstTensorView dy, const Saved& saved) const {
    context.backend.grouped_gemm_weight_grad(context.compute, {.a = dy,
                                                               .b = x,
                                                               .c = layer.weight.sum(),
                                                               .rows_per_part = cells.rows_per_expert,
                                                               .from_zero = layer.weight.start_sum()});
    if (!layer.bias) return;
    context.backend.grouped_gemm_weight_grad(
        context.compute,
        {.a = dy, .b = saved.ones, .c = layer.bias.sum(), .rows_per_part = cells.rows_per_expert});
}

Tensor CellExperts::forward(StepContext& context, ConstTensorView x, const CellRows& cells,
                            Saved& saved) const {
    Backend& backend = context.backend;
    const i64 rows = cells.order.elements();
    saved.rows = backend.allocate({rows, x.cols()}, x.dtype);
    backend.gather_rows(context.compute, {.in = x, .index = cells.order, .out = saved.rows});
    saved.ones = backend.allocate({rows, 1}, accumulation_type(x.dtype));
    backend.fill(context.compute, 1, saved.ones);
    ConstTensorView input = saved.rows;
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) {
        saved.preactivation.push_back(linear(context, input, cells, layers_[i], saved));
        saved.hidden.push_back(backend.allocate({rows, hidden_}, x.dtype));
        backend.activation(context.compute, {.kind = activation_,
                                             .x = saved.preactivation.back(),
                                             .y = saved.hidden.back(),
                                             .slope = layers_[i].slope.value_or_empty(),
                                             .rows_per_group = cells.rows_per_expert});
        input = saved.hidden.back();
    }
    const Tensor by_expert = linear(context, input, cells, layers_.back(), saved);
    Tensor outputs = backend.allocate({x.rows(), outputs_}, x.dtype);
    backend.combine_rows(context.compute,
                         {.rows = by_expert, .slot = cells.slot, .weight = {}, .y = outputs});
    return outputs;
}

void CellExperts::backward(StepContext& context, const CellRows& cells, ConstTensorView d_outputs,
                           Saved& saved) const {
    Backend& backend = context.backend;
    const i64 rows = cells.order.elements();
    Tensor dy = backend.allocate({rows, outputs_}, d_outputs.dtype);
    backend.gather_rows(context.compute, {.in = d_outputs, .index = cells.order, .out = dy});
    for (std::size_t i = layers_.size(); i-- > 1;) {
        const Tensor& hidden = saved.hidden[i - 1];
        add_gradients(context, hidden, cells, layers_[i], dy, saved);
        Tensor d_hidden = backend.allocate(hidden.shape(), hidden.dtype());
        backend.grouped_gemm(context.compute, {.a = dy,
                                               .b = layers_[i].weight.value(),
                                               .c = d_hidden,
                                               .rows_per_group = cells.rows_per_expert,
                                               .packed_b = layers_[i].weight.packed_plain()});
        const Layer& below = layers_[i - 1];
        dy = std::move(saved.preactivation[i - 1]);  // in its place
        backend.activation_backward(context.compute, {.kind = activation_,
                                                      .x = dy,
                                                      .dy = d_hidden,
                                                      .dx = dy,
                                                      .slope = below.slope.value_or_empty(),
                                                      .rows_per_group = cells.rows_per_expert,
                                                      .d_slope = below.slope.sum_or_empty()});
    }
    add_gradients(context, saved.rows, cells, layers_.front(), dy, saved);
}

std::vector<i64> CellExperts::counts(const CellRows& cells) const {
    std::vector<i64> counts(static_cast<std::size_t>(experts_), 0);
    std::copy(cells.rows_per_expert.begin(), cells.rows_per_expert.end(), counts.begin() + first_expert_);
    return counts;
}

}  // namespace moesaic
