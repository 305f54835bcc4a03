// The table that turns token numbers into vectors.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Declares model.embed_tokens.weight [V,H]. Input: tokens i32 [T].
class EmbeddingLayer {
  public:
    struct Saved {};

    EmbeddingLayer(const ModelSpec& spec, ParameterStore& store);

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Returns an empty tensor: tokens have no gradient.
    Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy, Saved& saved) const;

    /// [V,H]; the output head reads it where embeddings are tied.
    [[nodiscard]] const Weight& table() const { return table_; }

  private:
    i64 width_;
    DType dtype_;
    Weight table_;  // [V,H]
};

static_assert(Layer<EmbeddingLayer>);

}  // namespace moesaic
