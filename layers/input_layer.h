// The matrix that takes a row of features into the model's width.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// y = x · Wᵀ. Declares model.input.weight [H,D], D = spec.features. There is no bias: the last feature is
/// always 1, and its column of W is one.
class InputLayer {
  public:
    struct Saved {};

    InputLayer(const ModelSpec& spec, ParameterStore& store);

    /// x [T,D] -> [T,H].
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Returns an empty tensor: nobody asks for the gradient of data.
    Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy, Saved& saved) const;

  private:
    i64 width_;
    Weight weight_;  // [H,D]
};

static_assert(Layer<InputLayer>);

}  // namespace moesaic
