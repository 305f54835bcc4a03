// RMSNorm (Zhang and Sennrich 2019, eq. 4) with a learned weight.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Normalises every `extent` columns of its input: all of a row, or each head of it.
class RmsNormLayer {
  public:
    struct Saved {
        Tensor inverse_rms;  // real [T, columns / extent]
    };

    /// Declares the weight `name` [extent], initially 1.
    RmsNormLayer(std::string name, int layer, i64 extent, double eps, ParameterStore& store);

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

  private:
    i64 extent_;
    double eps_;
    Weight weight_;  // [extent]
};

static_assert(Layer<RmsNormLayer>);

}  // namespace moesaic
