#include "layers/rms_norm_layer.h"

namespace moesaic {

RmsNormLayer::RmsNormLayer(std::string name, int layer, i64 extent, double eps, ParameterStore& store)
    : extent_(extent), eps_(eps) {
    Parameter weight;
    weight.name = std::move(name);
    weight.shape = {extent};
    weight.layer = layer;
    weight.init_constant = 1;
    weight_ = store.declare(std::move(weight));
}

Tensor RmsNormLayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    Backend& backend = context.backend;
    Tensor y = backend.allocate(in.x.shape, in.x.dtype);
    saved.inverse_rms = backend.allocate({in.x.rows(), in.x.cols() / extent_}, accumulation_type(in.x.dtype));
    backend.rms_norm(
        context.compute,
        {.x = in.x, .weight = weight_.value(), .y = y, .inverse_rms = saved.inverse_rms, .eps = eps_});
    return y;
}

Tensor RmsNormLayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                              Saved& saved) const {
    Tensor dx = context.backend.allocate(in.x.shape, in.x.dtype);
    context.backend.rms_norm_backward(context.compute, {.x = in.x,
                                                        .weight = weight_.value(),
                                                        .inverse_rms = saved.inverse_rms,
                                                        .dy = dy,
                                                        .dx = dx,
                                                        .d_weight = weight_.grad()});
    return dx;
}

}  // namespace moesaic
