// The matrix by which most routers score experts.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Declares block_parameter_name(layer, name) [E,H]; logits = x · weightᵀ.
class Gate {
  public:
    Gate(const ModelSpec& spec, int layer, std::string_view name, ParameterStore& store);

    /// x [T,H] -> real [T,E]; a bf16 model routes in f32.
    [[nodiscard]] Tensor logits(StepContext& context, ConstTensorView x) const;
    /// Adds onto the gradient and onto dx [T,H].
    void backward(StepContext& context, ConstTensorView x, ConstTensorView d_logits, TensorView dx) const;

  private:
    Weight weight_;
};

}  // namespace moesaic
