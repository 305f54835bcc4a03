// From the last hidden states to a loss per row.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// logits = x · Wᵀ, then spec.loss. Declares lm_head.weight [V,H], V = spec.head_outputs(), unless it is
/// given the embedding's table.
class OutputHead {
  public:
    struct Saved {
        Tensor logits;           // real [T,V]; the backward overwrites them
        Tensor log_sum_exp;      // f64 [T]; cross-entropy only
        ConstTensorView target;  // i32 [T], set before the forward; -1: masked
        ConstTensorView
            values;        // f64 [T,V], set before the forward instead where the loss is the squared error
        Tensor wrong;      // i32 [T] as CrossEntropy says; cross-entropy in phase evaluate only
        Tensor margin;     // f64 [T] as CrossEntropy says; cross-entropy only
        double scale = 1;  // d loss / d token loss, set before the backward
    };

    /// Without weights: rows [T,V] are the logits themselves.
    explicit OutputHead(const ModelSpec& spec);
    /// `tied` is the embedding's table, or an empty Weight.
    OutputHead(const ModelSpec& spec, const Weight& tied, ParameterStore& store);

    /// x [T,H] -> logits real [T,V]: of a bf16 model in f32, as the product accumulated them.
    [[nodiscard]] Tensor logits(StepContext& context, ConstTensorView x) const;
    /// x [T,H] -> loss per row f64 [T], 0 where masked.
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Gradient of saved.scale * sum of the losses; dy is not read.
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

  private:
    i64 outputs_;
    LossKind loss_;
    Weight weight_;  // [V,H]
};

static_assert(Layer<OutputHead>);

}  // namespace moesaic
