#include "layers/routers/noisy_top_k_router.h"

namespace moesaic {

NoisyTopKRouter::NoisyTopKRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : experts_(spec.experts),
      top_k_(spec.top_k),
      seed_(spec.router.seed),
      noise_name_(block_parameter_name(layer, "mlp.gate.noise")),
      measures_load_(spec.balance.load > 0),
      gate_(spec, layer, "mlp.gate.weight", store),
      noise_gate_(spec, layer, "mlp.gate.noise.weight", store),
      scoring_(spec) {}

Routing NoisyTopKRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    const bool noisy = context.phase != Phase::evaluate;
    scoring_.score(context, noisy ? noisy_logits(context, in, saved) : gate_.logits(context, in.x), saved);
    if (noisy && measures_load_) measure_load(context, saved);
    return scoring_.weigh(context, scoring_.choose(context, saved), saved);
}

Tensor NoisyTopKRouter::noisy_logits(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    Backend& backend = context.backend;
    saved.noise.clean = gate_.logits(context, in.x);
    saved.noise.spread = noise_gate_.logits(context, in.x);
    const Shape shape = saved.noise.clean.shape();
    const DType real = saved.noise.clean.dtype();
    saved.noise.normal = backend.allocate(shape, real);
    backend.random_fill(context.compute,
                        {.random = Philox(seed_, fmt::format("{} step {}", noise_name_, context.step)),
                         .first = static_cast<u64>(in.first_token * experts_),
                         .normal = true,
                         .values = saved.noise.normal});
    Tensor logits = backend.allocate(shape, real);
    backend.noisy_logits(context.compute, {.clean = saved.noise.clean,
                                           .spread = saved.noise.spread,
                                           .noise = saved.noise.normal,
                                           .logits = logits});
    return logits;
}

void NoisyTopKRouter::measure_load(StepContext& context, RouterSaved& saved) const {
    Backend& backend = context.backend;
    const i64 tokens = saved.logits.rows();
    const DType real = saved.logits.dtype();
    saved.noise.logits = backend.allocate(saved.logits.shape(), real);
    backend.copy(context.compute, saved.logits, saved.noise.logits);
    saved.noise.ranked = backend.allocate({tokens, top_k_ + 1}, DType::int32);
    saved.load_probability = backend.allocate(saved.logits.shape(), real);
    Tensor value = backend.allocate({tokens, top_k_ + 1}, real);  // nobody reads it
    backend.top_k(context.compute, {.scores = saved.logits, .index = saved.noise.ranked, .value = value});
    backend.noisy_load(context.compute, {.clean = saved.noise.clean,
                                         .spread = saved.noise.spread,
                                         .logits = saved.noise.logits,
                                         .ranked = saved.noise.ranked,
                                         .probability = saved.load_probability});
}

void NoisyTopKRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                               ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                               TensorView dx) const {
    Backend& backend = context.backend;
    Tensor d_logits = scoring_.d_logits(context, routing, d_weight, target, saved);
    Tensor d_clean = backend.allocate(d_logits.shape(), d_logits.dtype());
    Tensor d_spread = backend.allocate(d_logits.shape(), d_logits.dtype());
    backend.zero(context.compute, d_clean);
    backend.zero(context.compute, d_spread);
    if (measures_load_ && target.load_factor.elements() > 0) {
        backend.noisy_load_backward(context.compute, {.clean = saved.noise.clean,
                                                      .spread = saved.noise.spread,
                                                      .logits = saved.noise.logits,
                                                      .ranked = saved.noise.ranked,
                                                      .factor = target.load_factor,
                                                      .rows_per_object = target.rows_per_object,
                                                      .d_clean = d_clean,
                                                      .d_spread = d_spread,
                                                      .d_logits = d_logits});
    }
    backend.noisy_logits_backward(context.compute, {.spread = saved.noise.spread,
                                                    .noise = saved.noise.normal,
                                                    .d_logits = d_logits,
                                                    .d_clean = d_clean,
                                                    .d_spread = d_spread});
    gate_.backward(context, in.x, d_clean, dx);
    noise_gate_.backward(context, in.x, d_spread, dx);
}

}  // namespace moesaic
