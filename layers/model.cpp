#include "layers/model.h"

#include <algorithm>

namespace moesaic {

Model::Model(const ModelSpec& spec, const Mesh& mesh, ParameterStore& store, PlantedDefects defects)
    : spec_(spec),
      world_(mesh.world().size()),
      defects_(defects),
      rotary_(spec.head_dim, spec.rope_theta, store.real()) {
    embedding_ = std::make_unique<EmbeddingLayer>(spec, store);
    store.end_segment();
    if (spec.experts > 0) exchange_ = make_exchange(spec, mesh, store.dtype());
    blocks_.reserve(static_cast<std::size_t>(spec.layers));
    for (int layer = 0; layer < spec.layers; ++layer) {
        blocks_.emplace_back(spec, layer, mesh, exchange_.get(), rotary_, store);
        store.end_segment();
    }
    norm_ = std::make_unique<RmsNormLayer>("model.norm.weight", -1, spec.width, spec.norm_eps, store);
    head_ = std::make_unique<OutputHead>(spec, spec.tie_embeddings ? embedding_->table() : Weight(), store);
    store.end_segment();
}

/// Collective over mesh.experts(). Returns what the head reads [T,H].
Tensor Model::run_blocks(StepContext& context, const Batch& batch, bool keep, ModelSaved& saved) {
    MOESAIC_ASSERT(batch.tokens.elements() == batch.sequences * batch.seq_len,
                   "{} tokens in {} sequences of {}", batch.tokens.elements(), batch.sequences,
                   batch.seq_len);
    saved = {};
    saved.batch = batch;
    saved.batch.seq_len = std::max<i64>(batch.seq_len, 1);
    const i64 seq_len = saved.batch.seq_len;
    rotary_.prepare(context, seq_len);
    saved.blocks.resize(blocks_.size());
    saved.inputs.resize(blocks_.size() + 1);
    EmbeddingLayer::Saved nothing;
    saved.inputs[0] = embedding_->forward(context, {batch.tokens, seq_len}, nothing);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        saved.inputs[i + 1] =
            blocks_[i].forward(context, {saved.inputs[i], seq_len, batch.first_key}, saved.blocks[i]);
        if (keep && spec_.recompute) saved.blocks[i] = Block::keep_decisions(std::move(saved.blocks[i]));
        if (keep) continue;
        saved.inputs[i].reset();
        RouterTotals totals = std::move(saved.blocks[i].experts.router.totals);
        saved.blocks[i] = {};
        saved.blocks[i].experts.router.totals = std::move(totals);
    }
    return norm_->forward(context, {saved.inputs.back(), seq_len}, saved.norm);
}

ForwardResult Model::forward(StepContext& context, const Batch& batch, ModelSaved& saved) {
    const bool keep = context.phase != Phase::evaluate;
    ForwardResult result;
    saved.normed = run_blocks(context, batch, keep, saved);
    saved.head.target = batch.targets;
    result.token_loss = head_->forward(context, {saved.normed, saved.batch.seq_len}, saved.head);
    result.token_wrong = std::move(saved.head.wrong);
    context.compute.synchronize();  // the routers' totals
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (!blocks_[i].has_experts()) continue;
        const RouterTotals& totals = saved.blocks[i].experts.router.totals;
        RouterStatistics& statistics = result.routers.emplace_back();
        statistics.counts.assign(static_cast<std::size_t>(spec_.experts), 0);
        for (std::size_t j = 0; j < totals.host_counts.size(); ++j) {
            statistics.counts[j % statistics.counts.size()] += totals.host_counts[j];
        }
        for (const double weight : totals.weight_sum) statistics.weight_sum += weight;
        statistics.choices = totals.choices;
    }
    if (!keep) saved = {};
    return result;
}

Tensor Model::logits(StepContext& context, const Batch& batch) {
    ModelSaved saved;
    const Tensor normed = run_blocks(context, batch, false, saved);
    Tensor logits = head_->logits(context, normed);
    context.compute.synchronize();  // the routers' totals are copied into `saved`
    return logits;
}

double Model::balance_tokens(const ModelSaved& saved, const GlobalBatch& global) const {
    const i64 local = saved.batch.tokens.elements() * world_;
    return static_cast<double>(std::max<i64>(defects_.local_balance_loss ? local : global.tokens, 1));
}

BalanceTerms Model::balance_of(const RouterTotals& totals, double tokens,
                               std::span<const i64> global_counts) const {
    const double object_tokens = global_counts.empty() ? static_cast<double>(totals.rows_per_object) : tokens;
    const auto experts = static_cast<std::size_t>(spec_.experts);
    BalanceTerms terms;
    for (std::size_t i = 0; i < totals.probability_sum.size(); ++i) {
        const i64 count = global_counts.empty() ? totals.host_counts[i] : global_counts[i % experts];
        terms.aux += static_cast<double>(count) * totals.probability_sum[i];
    }
    terms.aux *=
        static_cast<double>(spec_.experts) / (static_cast<double>(spec_.top_k) * tokens * object_tokens);
    for (const double z : totals.z_sum) terms.z += z / tokens;
    return terms;
}

BalanceTerms Model::balance(const ModelSaved& saved, const GlobalBatch& global) const {
    const double tokens = balance_tokens(saved, global);
    const auto experts = static_cast<std::size_t>(spec_.experts);
    std::span<const i64> counts;
    if (spec_.balance.scope == BalanceScope::global) counts = global.expert_counts;
    BalanceTerms sum;
    for (std::size_t i = 0, expert_layer = 0; i < blocks_.size(); ++i) {
        if (!blocks_[i].has_experts()) continue;
        const std::size_t first = expert_layer++ * experts;
        const BalanceTerms terms = balance_of(saved.blocks[i].experts.router.totals, tokens,
                                              counts.empty() ? counts : counts.subspan(first, experts));
        sum.aux += terms.aux;
        sum.z += terms.z;
    }
    return sum;
}

/// i64 [expert layers, E]. The forward of every micro-batch synchronises, so that the copy of the last one
/// has run before host_counts_ changes.
Tensor Model::upload_counts(StepContext& context, const GlobalBatch& global) {
    if (spec_.balance.scope != BalanceScope::global) return {};
    const i64 expected = spec_.expert_layers() * spec_.experts;
    host_counts_ = global.expert_counts;
    MOESAIC_ASSERT(static_cast<i64>(host_counts_.size()) == expected, "{} counts instead of {}",
                   host_counts_.size(), expected);
    Tensor counts = context.backend.allocate({spec_.expert_layers(), spec_.experts}, DType::int64);
    context.backend.copy(context.compute, view_of(host_counts_.data(), counts.shape()), counts);
    return counts;
}

void Model::backward(StepContext& context, ModelSaved& saved, const GlobalBatch& global,
                     const std::function<void(int segment)>& segment_ready) {
    const i64 seq_len = saved.batch.seq_len;
    const double tokens = balance_tokens(saved, global);
    const Tensor counts = upload_counts(context, global);  // [expert layers, E]; empty but for scope global
    saved.head.scale = 1.0 / static_cast<double>(std::max<i64>(global.targets, 1));
    Tensor d_normed = head_->backward(context, {saved.normed, seq_len}, {}, saved.head);
    Tensor dx = norm_->backward(context, {saved.inputs.back(), seq_len}, d_normed, saved.norm);
    d_normed.reset();
    saved.head = {};
    segment_ready(spec_.layers + 1);

    i64 expert_layer = spec_.expert_layers();
    for (std::size_t i = blocks_.size(); i-- > 0;) {
        if (blocks_[i].has_experts()) {
            --expert_layer;
            saved.blocks[i].experts.balance.tokens = tokens;
            if (counts) saved.blocks[i].experts.balance.global_counts = counts.slice_rows(expert_layer, 1);
        }
        const LayerInput in{saved.inputs[i], seq_len, saved.batch.first_key};
        if (spec_.recompute) {
            StepContext again = context;
            again.phase = Phase::recompute;
            (void)blocks_[i].forward(again, in, saved.blocks[i]);
        }
        dx = blocks_[i].backward(context, in, dx, saved.blocks[i]);
        saved.blocks[i] = {};
        saved.inputs[i + 1].reset();
        segment_ready(static_cast<int>(i) + 1);
    }
    EmbeddingLayer::Saved nothing;
    embedding_->backward(context, {saved.batch.tokens, seq_len}, dx, nothing);
    saved = {};
    segment_ready(0);
}

}  // namespace moesaic
