#include "layers/embedding.h"

namespace moesaic {

EmbeddingLayer::EmbeddingLayer(const ModelSpec& spec, ParameterStore& store)
    : width_(spec.width), dtype_(store.dtype()) {
    Parameter table;
    table.name = "model.embed_tokens.weight";
    table.shape = {spec.vocabulary, spec.width};
    table.init_std = spec.init_std;
    table_ = store.declare(std::move(table));
}

Tensor EmbeddingLayer::forward(StepContext& context, const LayerInput& in, Saved&) const {
    Tensor y = context.backend.allocate({in.x.rows(), width_}, dtype_);  // [T,H]
    context.backend.embedding(context.compute, {.table = table_.value(), .index = in.x, .y = y});
    return y;
}

Tensor EmbeddingLayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                Saved&) const {
    context.backend.embedding_backward(context.compute, {.index = in.x, .dy = dy, .d_table = table_.grad()});
    return {};
}

}  // namespace moesaic
