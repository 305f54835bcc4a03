#include "layers/input_layer.h"

namespace moesaic {

InputLayer::InputLayer(const ModelSpec& spec, ParameterStore& store) : width_(spec.width) {
    Parameter weight;
    weight.name = "model.input.weight";
    weight.shape = {spec.width, spec.features};
    weight.init_std = spec.init_std;
    weight_ = store.declare(std::move(weight));
    store.used_in_products(weight_);
}

Tensor InputLayer::forward(StepContext& context, const LayerInput& in, Saved&) const {
    Tensor y = context.backend.allocate({in.x.rows(), width_}, in.x.dtype);
    context.backend.gemm(
        context.compute,
        {.a = in.x, .b = weight_.value(), .c = y, .trans_b = true, .packed_b = weight_.packed_transposed()});
    return y;
}

Tensor InputLayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy, Saved&) const {
    context.backend.gemm(context.compute,
                         {.a = dy, .b = in.x, .c = weight_.grad(), .trans_a = true, .accumulate = true});
    return {};
}

}  // namespace moesaic
