#include "layers/routers/switch_router.h"

namespace moesaic {

SwitchRouter::SwitchRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : jitter_(spec.router.jitter),
      seed_(spec.router.seed),
      jitter_name_(block_parameter_name(layer, "mlp.gate.jitter")),
      gate_(spec, layer, "mlp.gate.weight", store),
      scoring_(spec) {}

Routing SwitchRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    if (jitters(context)) draw_jitter(context, in, saved);
    const ConstTensorView x = jitters(context) ? saved.jitter.input.view() : in.x;
    return scoring_.route(context, in, gate_.logits(context, x), saved);
}

void SwitchRouter::draw_jitter(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    Backend& backend = context.backend;
    saved.jitter.factor = backend.allocate(in.x.shape, accumulation_type(in.x.dtype));
    saved.jitter.input = backend.allocate(in.x.shape, in.x.dtype);
    backend.random_fill(context.compute,
                        {.random = Philox(seed_, fmt::format("{} step {}", jitter_name_, context.step)),
                         .first = static_cast<u64>(in.first_token * in.x.cols()),
                         .normal = false,
                         .low = 1 - jitter_,
                         .high = 1 + jitter_,
                         .values = saved.jitter.factor});
    backend.multiply_elements(context.compute,
                              {.x = in.x, .factor = saved.jitter.factor, .y = saved.jitter.input});
}

void SwitchRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                            ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                            TensorView dx) const {
    const Tensor d_logits = scoring_.d_logits(context, routing, d_weight, target, saved);
    if (!saved.jitter.input) return gate_.backward(context, in.x, d_logits, dx);
    Tensor d_input = context.backend.allocate(in.x.shape, in.x.dtype);
    context.backend.zero(context.compute, d_input);
    gate_.backward(context, saved.jitter.input, d_logits, d_input);
    context.backend.multiply_elements(
        context.compute, {.x = d_input, .factor = saved.jitter.factor, .y = dx, .accumulate = true});
}

}  // namespace moesaic
