// Closed forms of a model's size and work.
#include "launch/trainer.h"

namespace moesaic {

namespace {

/// Of a block, its norms included.
i64 attention_parameters(const ModelSpec& spec) {
    if (spec.kind != ModelKind::transformer) return spec.residual ? spec.width : 0;
    const i64 query = spec.heads * spec.head_dim, key = spec.kv_heads * spec.head_dim;
    i64 attention = spec.width * (2 * query + 2 * key) + 2 * spec.width;
    if (spec.qk_norm == QkNorm::full) attention += query + key;
    if (spec.qk_norm == QkNorm::head) attention += 2 * spec.head_dim;
    return attention;
}

/// Of the embedding table, which is looked up; 0 where it is a product.
i64 looked_up_parameters(const ModelSpec& spec) {
    return spec.features > 0 || spec.tie_embeddings ? 0 : spec.vocabulary * spec.width;
}

}  // namespace

ParameterCounts count_parameters(const ModelSpec& spec) {
    if (spec.kind == ModelKind::momlp) {
        const i64 slopes = spec.activation == ActivationKind::prelu ? spec.layers : 0;
        const i64 expert = spec.width * spec.features + (spec.layers - 1) * spec.width * (spec.width + 1) +
                           spec.head_outputs() * (spec.width + 1) + slopes;
        return {spec.experts * expert, expert};
    }
    const i64 attention = attention_parameters(spec);
    const i64 expert = spec.feed_forward_parameters(spec.hidden);
    const i64 dense = spec.feed_forward_parameters(spec.dense_hidden);
    const i64 router = router_traits(spec.router).matrices * spec.width * spec.experts;
    const i64 expert_layers = spec.expert_layers(), dense_layers = spec.layers - expert_layers;
    const i64 input = (spec.features > 0 ? spec.features : spec.vocabulary) * spec.width;
    const i64 head = spec.tie_embeddings ? 0 : spec.head_outputs() * spec.width;
    const i64 norm = spec.residual ? spec.width : 0;
    // Every token visits them.
    const i64 shared_experts =
        (spec.shared_experts > 0 ? spec.feed_forward_parameters(spec.shared_hidden()) : 0) +
        (spec.shared_gate ? spec.width : 0);
    const i64 common = input + head + norm + spec.layers * attention + dense_layers * dense +
                       expert_layers * (router + shared_experts);
    return {common + expert_layers * spec.experts * expert, common + expert_layers * spec.top_k * expert};
}

double model_flops_per_token(const ModelSpec& spec) {
    const ParameterCounts counts = count_parameters(spec);
    const bool attends = spec.kind == ModelKind::transformer;
    const i64 norms = spec.residual ? spec.width * ((attends ? 2 : 1) * spec.layers + 1) : 0;
    const double products = 6.0 * static_cast<double>(counts.active - looked_up_parameters(spec) - norms);
    if (!attends) return products;
    const double keys = static_cast<double>(spec.seq_len) * (spec.causal ? 1 : 2);
    return products + 6.0 * keys * static_cast<double>(spec.layers * spec.heads * spec.head_dim);
}

}  // namespace moesaic
