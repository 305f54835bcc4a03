// Closed forms of a model's size and work.
#include "launch/trainer.h"

namespace moesaic {

ParameterCounts count_parameters(const ModelSpec& spec) {
    const i64 query = spec.heads * spec.head_dim, key = spec.kv_heads * spec.head_dim;
    i64 attention = spec.width * (2 * query + 2 * key) + 2 * spec.width;  // and the two norms of a block
    if (spec.qk_norm == QkNorm::full) attention += query + key;
    if (spec.qk_norm == QkNorm::head) attention += 2 * spec.head_dim;
    const i64 expert = spec.feed_forward_parameters(spec.hidden);
    const i64 dense = spec.feed_forward_parameters(spec.dense_hidden);
    const i64 router = router_traits(spec.router).matrices * spec.width * spec.experts;
    const i64 expert_layers = spec.expert_layers(), dense_layers = spec.layers - expert_layers;
    const i64 tables = spec.vocabulary * spec.width * (spec.tie_embeddings ? 1 : 2);
    // Every token visits them.
    const i64 shared_experts =
        (spec.shared_experts > 0 ? spec.feed_forward_parameters(spec.shared_hidden()) : 0) +
        (spec.shared_gate ? spec.width : 0);
    const i64 common = tables + spec.width + spec.layers * attention + dense_layers * dense +
                       expert_layers * (router + shared_experts);
    return {common + expert_layers * spec.experts * expert, common + expert_layers * spec.top_k * expert};
}

double model_flops_per_token(const ModelSpec& spec) {
    const ParameterCounts counts = count_parameters(spec);
    // A look-up is no product; a tied table is one in the head.
    const i64 table = spec.tie_embeddings ? 0 : spec.vocabulary * spec.width;
    const i64 norms = spec.width * (2 * spec.layers + 1);
    const double products = 6.0 * static_cast<double>(counts.active - table - norms);
    const double attention =
        6.0 * static_cast<double>(spec.layers * spec.seq_len * spec.heads * spec.head_dim);
    return products + attention;
}

}  // namespace moesaic
