#include "layers/routers/sigmoid_bias_router.h"

namespace moesaic {

SigmoidBiasRouter::SigmoidBiasRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : rate_(spec.router.bias_rate),
      recentre_(spec.router.bias_recentre),
      gate_(spec, layer, "mlp.gate.weight", store),
      bias_(store.declare_buffer(block_parameter_name(layer, "mlp.gate.e_score_correction_bias"),
                                 {spec.experts})),
      scoring_(spec) {}

Routing SigmoidBiasRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    return scoring_.route(context, in, gate_.logits(context, in.x), saved, bias_.value);
}

void SigmoidBiasRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                                 ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                                 TensorView dx) const {
    gate_.backward(context, in.x, scoring_.d_logits(context, routing, d_weight, target, saved), dx);
}

void SigmoidBiasRouter::update(StepContext& context, std::span<const i64> counts) {
    Tensor on_device = context.backend.allocate({std::ssize(counts)}, DType::int64);
    context.backend.copy(context.compute, view_of(counts.data(), on_device.shape()), on_device);
    context.backend.balance_bias(
        context.compute, {.counts = on_device, .rate = rate_, .recentre = recentre_, .bias = bias_.value});
}

std::vector<double> SigmoidBiasRouter::selection_bias() const {
    const i64 experts = bias_.value.elements();
    if (bias_.value.dtype() == DType::f64)
        return {bias_.value.as<double>(), bias_.value.as<double>() + experts};
    return {bias_.value.as<float>(), bias_.value.as<float>() + experts};
}

}  // namespace moesaic
