#include "layers/model.h"

#include <algorithm>
#include <numeric>

namespace moesaic {

namespace {

/// [O,E] -> [E]; zeros where there is no object.
template <class Number>
std::vector<Number> sum_over_objects(const std::vector<Number>& values, i64 experts) {
    std::vector<Number> sums(static_cast<std::size_t>(experts), Number{0});
    for (std::size_t i = 0; i < values.size(); ++i) sums[i % sums.size()] += values[i];
    return sums;
}

}  // namespace

Model::Model(const ModelSpec& spec, const Mesh& mesh, ParameterStore& store, PlantedDefects defects)
    : spec_(spec),
      world_(mesh.world().size()),
      defects_(defects),
      rotary_(spec.head_dim, spec.rope_theta, store.real()) {
    if (spec.kind == ModelKind::momlp) {
        cells_ = std::make_unique<CellExperts>(spec, mesh, store);
        store.end_segment();
        head_ = std::make_unique<OutputHead>(spec);
    } else {
        declare_stack(mesh, store);
    }
}

void Model::declare_stack(const Mesh& mesh, ParameterStore& store) {
    if (spec_.features > 0) {
        input_ = std::make_unique<InputLayer>(spec_, store);
    } else {
        embedding_ = std::make_unique<EmbeddingLayer>(spec_, store);
    }
    store.end_segment();
    if (spec_.experts > 0) exchange_ = make_exchange(spec_, mesh, store.dtype());
    blocks_.reserve(static_cast<std::size_t>(spec_.layers));
    for (int layer = 0; layer < spec_.layers; ++layer) {
        blocks_.emplace_back(spec_, layer, mesh, exchange_.get(), rotary_, store);
        store.end_segment();
    }
    if (spec_.residual)
        norm_ = std::make_unique<RmsNormLayer>("model.norm.weight", -1, spec_.width, spec_.norm_eps, store);
    head_ = std::make_unique<OutputHead>(spec_, spec_.tie_embeddings ? embedding_->table() : Weight(), store);
    store.end_segment();
}

LayerInput Model::input_of(const ModelSaved& saved, std::size_t index) {
    const Batch& batch = saved.batch;
    return {saved.inputs[index], batch.seq_len, batch.first_key, batch.tokens,
            batch.first_sequence * batch.seq_len};
}

Tensor Model::run_input(StepContext& context, const Batch& batch) const {
    const ConstTensorView x = input_ ? batch.features : batch.tokens;
    MOESAIC_ASSERT(x.rows() == batch.rows() || batch.rows() == 0, "{} rows in {} sequences of {}", x.rows(),
                   batch.sequences, batch.seq_len);
    EmbeddingLayer::Saved no_ids;
    InputLayer::Saved no_features;
    return input_ ? input_->forward(context, {x, batch.seq_len}, no_features)
                  : embedding_->forward(context, {x, batch.seq_len}, no_ids);
}

ConstTensorView Model::head_input(const ModelSaved& saved) {
    return saved.normed ? saved.normed : saved.inputs.back();
}

/// Collective over mesh.experts(). Up to what the head reads.
void Model::run_blocks(StepContext& context, const Batch& batch, bool keep, ModelSaved& saved) {
    saved = {};
    saved.batch = batch;
    saved.batch.seq_len = std::max<i64>(batch.seq_len, 1);
    if (cells_) {
        saved.inputs.resize(1);
        saved.inputs[0] = cells_->forward(context, batch.features, batch.cells, saved.cells);
        return;
    }
    const i64 seq_len = saved.batch.seq_len;
    if (spec_.kind == ModelKind::transformer) rotary_.prepare(context, seq_len);
    saved.blocks.resize(blocks_.size());
    saved.inputs.resize(blocks_.size() + 1);
    saved.inputs[0] = run_input(context, saved.batch);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        saved.inputs[i + 1] = blocks_[i].forward(context, input_of(saved, i), saved.blocks[i]);
        if (keep && spec_.recompute) saved.blocks[i] = Block::keep_decisions(std::move(saved.blocks[i]));
        if (keep) continue;
        saved.inputs[i].reset();
        RouterTotals totals = std::move(saved.blocks[i].experts.router.totals);
        saved.blocks[i] = {};
        saved.blocks[i].experts.router.totals = std::move(totals);
    }
    if (norm_) saved.normed = norm_->forward(context, {saved.inputs.back(), seq_len}, saved.norm);
}

ForwardResult Model::forward(StepContext& context, const Batch& batch, ModelSaved& saved) {
    const bool keep = context.phase == Phase::train;
    ForwardResult result;
    run_blocks(context, batch, keep, saved);
    saved.head.target = batch.targets;
    saved.head.values = batch.values;
    const WorkScope scope(context.timeline, context.compute, WorkPhase::head);
    result.token_loss = head_->forward(context, {head_input(saved), saved.batch.seq_len}, saved.head);
    result.token_wrong = std::move(saved.head.wrong);
    result.token_margin = std::move(saved.head.margin);
    context.compute.synchronize();  // the routers' totals
    result.routers = router_statistics(saved);
    if (!keep) {  // but what the head read
        Tensor features = std::move(saved.normed);
        saved = {};
        saved.normed = std::move(features);
    }
    return result;
}

std::vector<RouterStatistics> Model::count_choices(StepContext& context, const Batch& batch) {
    ModelSaved saved;
    run_blocks(context, batch, false, saved);
    context.compute.synchronize();  // the routers' totals
    return router_statistics(saved);
}

std::vector<RouterStatistics> Model::router_statistics(const ModelSaved& saved) const {
    const auto sum = [](const std::vector<double>& parts) {
        return std::accumulate(parts.begin(), parts.end(), 0.0);
    };
    std::vector<RouterStatistics> all;
    if (cells_) {
        RouterStatistics& statistics = all.emplace_back();
        statistics.counts = cells_->counts(saved.batch.cells);
        statistics.balance_counts = statistics.counts;
        statistics.weights.assign(statistics.counts.begin(), statistics.counts.end());
        statistics.loads.assign(statistics.counts.size(), 0.0);
        statistics.choices = std::accumulate(statistics.counts.begin(), statistics.counts.end(), i64{0});
        statistics.weight_sum = static_cast<double>(statistics.choices);
        statistics.tokens = statistics.choices;
        return all;
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (!blocks_[i].has_experts()) continue;
        const RouterSaved& router = saved.blocks[i].experts.router;
        const RouterTotals& totals = router.totals;
        RouterStatistics& statistics = all.emplace_back();
        statistics.counts = sum_over_objects(totals.host_counts, spec_.experts);
        statistics.balance_counts = sum_over_objects(totals.balance_counts, spec_.experts);
        statistics.weights = sum_over_objects(totals.weight_sum, spec_.experts);
        statistics.loads = sum_over_objects(totals.load_sum, spec_.experts);
        statistics.weight_sum = sum(statistics.weights);
        statistics.choices = totals.chosen();
        statistics.dropped = totals.dropped;
        statistics.tokens = totals.tokens;
        if (router.confidence.entropy.empty()) continue;
        statistics.entropy_sum = sum(router.confidence.entropy);
        statistics.first_weight_sum = sum(router.confidence.first_weight);
    }
    return all;
}

Tensor Model::logits(StepContext& context, const Batch& batch) {
    ModelSaved saved;
    run_blocks(context, batch, false, saved);
    Tensor logits = head_->logits(context, head_input(saved));
    context.compute.synchronize();  // the routers' totals are copied into `saved`
    return logits;
}

std::vector<std::vector<double>> Model::selection_biases() const {
    if (cells_) return {{}};
    std::vector<std::vector<double>> biases;
    for (const Block& block : blocks_) {
        if (block.has_experts()) biases.push_back(block.router().selection_bias());
    }
    return biases;
}

GlobalBalance Model::global_balance(const ModelSaved& saved, const GlobalBatch& global) const {
    const i64 local = saved.batch.rows() * world_;
    GlobalBalance balance;
    balance.tokens =
        static_cast<double>(std::max<i64>(defects_.local_balance_loss ? local : global.tokens, 1));
    if (spec_.balance.scope == BalanceScope::global) {
        balance.counts = global.expert_counts;
        balance.weight = global.expert_weights;
        balance.load = global.expert_loads;
    }
    return balance;
}

std::vector<const RouterTotals*> Model::router_totals(const ModelSaved& saved) const {
    std::vector<const RouterTotals*> totals;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (blocks_[i].has_experts()) totals.push_back(&saved.blocks[i].experts.router.totals);
    }
    return totals;
}

BalanceTerms Model::balance(const ModelSaved& saved, const GlobalBatch& global) const {
    if (cells_) return {};
    return balance_terms(spec_, router_totals(saved), global_balance(saved, global));
}

/// The forward of every micro-batch synchronises, so that the copies of the last one have run before
/// host_factors_ changes.
Model::Factors Model::upload_factors(StepContext& context, ModelSaved& saved, const GlobalBatch& global) {
    const GlobalBalance balance = global_balance(saved, global);
    balance_factors(spec_, router_totals(saved), balance, host_factors_);
    const i64 rows = host_factors_.rows;
    const auto upload = [&](const std::vector<double>& values) {
        if (values.empty()) return Tensor();
        Tensor tensor = context.backend.allocate({rows * spec_.expert_layers(), spec_.experts}, DType::f64);
        context.backend.copy(context.compute, view_of(values.data(), tensor.shape()), tensor);
        return tensor;
    };
    Factors factors{upload(host_factors_.probability), upload(host_factors_.weight),
                    upload(host_factors_.load)};
    i64 first = 0;
    const auto of_layer = [&](const Tensor& all) {
        return all ? all.slice_rows(first, rows) : ConstTensorView();
    };
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (!blocks_[i].has_experts()) continue;
        MoELayer::Saved& layer = saved.blocks[i].experts;
        layer.balance = {of_layer(factors.probability), of_layer(factors.weight), of_layer(factors.load),
                         layer.router.totals.rows_per_object, spec_.balance.z / balance.tokens};
        first += rows;
    }
    return factors;
}

Tensor Model::head_backward(StepContext& context, ModelSaved& saved) {
    const WorkScope scope(context.timeline, context.compute, WorkPhase::head, -1, true);
    const i64 seq_len = saved.batch.seq_len;
    Tensor dx = head_->backward(context, {head_input(saved), seq_len}, {}, saved.head);
    if (norm_) dx = norm_->backward(context, {saved.inputs.back(), seq_len}, dx, saved.norm);
    return dx;
}

void Model::backward(StepContext& context, ModelSaved& saved, const GlobalBatch& global,
                     const std::function<void(int segment)>& segment_ready) {
    const i64 seq_len = saved.batch.seq_len;
    saved.head.scale = 1.0 / static_cast<double>(std::max<i64>(global.targets, 1));
    if (cells_) {
        const Tensor d_outputs = head_->backward(context, {head_input(saved), seq_len}, {}, saved.head);
        cells_->backward(context, saved.batch.cells, d_outputs, saved.cells);
        saved = {};
        segment_ready(0);
        return;
    }
    const Factors factors = upload_factors(context, saved, global);  // the layers' balance targets view it
    Tensor dx = head_backward(context, saved);
    saved.head = {};
    segment_ready(spec_.layers + 1);

    for (std::size_t i = blocks_.size(); i-- > 0;) {
        const LayerInput in = input_of(saved, i);
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
    if (input_) {
        InputLayer::Saved nothing;
        input_->backward(context, {saved.batch.features, seq_len}, dx, nothing);
    } else {
        EmbeddingLayer::Saved nothing;
        embedding_->backward(context, {saved.batch.tokens, seq_len}, dx, nothing);
    }
    saved = {};
    segment_ready(0);
}

void Model::update_routers(StepContext& context, std::span<const i64> counts) const {
    const auto experts = static_cast<std::size_t>(spec_.experts);
    for (std::size_t i = 0, layer = 0; i < blocks_.size(); ++i) {
        if (blocks_[i].has_experts())
            blocks_[i].update_router(context, counts.subspan(experts * layer++, experts));
    }
}

}  // namespace moesaic
