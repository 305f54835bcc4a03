// Every layer's backward against finite differences: a new layer joins with a line.
#include "tests/support/grad_check.h"

#include "comm/self_communicator.h"
#include "layers/attention_layer.h"
#include "layers/dense_feed_forward.h"
#include "layers/embedding.h"
#include "layers/model.h"
#include "layers/moe_layer.h"
#include "layers/output_head.h"
#include "layers/rms_norm_layer.h"

namespace moesaic {
namespace {

ModelSpec tiny_spec() {
    ModelSpec spec;
    spec.vocabulary = 11;
    spec.width = 8;
    spec.layers = 2;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 6;
    spec.init_std = 0.4;
    spec.dense_hidden = 5;
    spec.experts = 4;
    spec.top_k = 2;
    spec.hidden = 5;
    spec.balance = {.aux = 0.7, .z = 0.3, .scope = BalanceScope::micro};
    spec.seq_len = 5;
    spec.micro_sequences = 3;
    return spec;
}

constexpr i64 kTokens = 15;  // three sequences of five

/// One rank, a store and inputs: what a grad check needs besides the layer.
struct Bench {
    explicit Bench(const ModelSpec& model, int expert_parallel = 1)
        : spec(model), world(), rank(world, expert_parallel, static_cast<int>(spec.experts)) {}

    /// Declares nothing more: allocates, and makes the input [T,width].
    Tensor input(i64 width) {
        store.end_segment();
        allocate_with_noise(rank, store);
        return upload(rank, normal_values("x", kTokens * width), {kTokens, width});
    }

    ModelSpec spec;
    SelfCommunicator world;
    RankSetup rank;
    ParameterStore store{*rank.backend, DType::f64};
};

TEST(GradCheck, Embedding) {
    Bench bench(tiny_spec());
    const EmbeddingLayer layer(bench.spec, bench.store);
    bench.input(1);
    const std::vector<i32> tokens = whole_values("tokens", kTokens, bench.spec.vocabulary);
    GradCheck<EmbeddingLayer>{bench.rank, bench.store, layer, upload(bench.rank, tokens, {kTokens})}.run();
}

TEST(GradCheck, RmsNorm) {
    Bench bench(tiny_spec());
    const RmsNormLayer layer("norm", -1, 8, 1e-3, bench.store);
    GradCheck<RmsNormLayer>{bench.rank, bench.store, layer, bench.input(8)}.run();
}

TEST(GradCheck, RmsNormPerHead) {
    Bench bench(tiny_spec());
    const RmsNormLayer layer("norm", -1, 4, 1e-3, bench.store);
    GradCheck<RmsNormLayer>{bench.rank, bench.store, layer, bench.input(12)}.run();
}

TEST(GradCheck, DenseFeedForward) {
    Bench bench(tiny_spec());
    const DenseFeedForward layer(bench.spec, 0, bench.store);
    GradCheck<DenseFeedForward>{bench.rank, bench.store, layer, bench.input(8)}.run();
}

void check_attention(const ModelSpec& spec) {
    Bench bench(spec);
    RotaryTable rotary(spec.head_dim, spec.rope_theta, DType::f64);
    rotary.prepare(bench.rank.context, spec.seq_len);
    const AttentionLayer layer(spec, 0, rotary, bench.store);
    GradCheck<AttentionLayer> check{bench.rank, bench.store, layer, bench.input(spec.width), spec.seq_len};
    check.most_entries = 30;
    if (spec.clip_qkv) check.step = 1e-5;  // no q, k or v is that close to the clamp
    check.run();
}

TEST(GradCheck, Attention) {
    for (const QkNorm norm : {QkNorm::none, QkNorm::full, QkNorm::head}) {
        for (const i64 kv_heads : {1, 2, 4}) {
            for (const bool clip : {false, true}) {
                SCOPED_TRACE(
                    fmt::format("norm {} kv_heads {} clip {}", static_cast<int>(norm), kv_heads, clip));
                ModelSpec spec = tiny_spec();
                spec.qk_norm = norm;
                spec.kv_heads = kv_heads;
                if (clip) spec.clip_qkv = 1.0;
                check_attention(spec);
            }
        }
    }
}

/// The router as a layer whose output is the weights [T,K].
struct RouterAsLayer {
    struct Saved {
        RouterSaved router;
        Routing routing;
        BalanceTarget target;
    };
    const Router& router;

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const {
        saved.routing = router.route(context, in, saved.router);
        Tensor y = context.backend.allocate(saved.routing.weight.shape(), in.x.dtype);
        context.backend.copy(context.compute, saved.routing.weight, y);
        return y;
    }
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const {
        Tensor dx = context.backend.allocate(in.x.shape, in.x.dtype);
        context.backend.zero(context.compute, dx);
        router.backward(context, in, saved.routing, dy, saved.target, saved.router, dx);
        return dx;
    }
};
static_assert(Layer<RouterAsLayer>);

constexpr double kGlobalTokens = 40;  // of which the tokens here are a part
const std::vector<i64> kGlobalCounts = {9, 31, 0, 40};

/// aux * loss_aux + z * loss_z of one layer by their definitions.
double balance_objective(const ModelSpec& spec, const RouterTotals& totals) {
    const std::size_t experts = static_cast<std::size_t>(spec.experts);
    double aux = 0, z = 0;
    for (std::size_t object = 0; object < totals.z_sum.size(); ++object) {
        const bool global = spec.balance.scope == BalanceScope::global;
        const double tokens = global ? kGlobalTokens : static_cast<double>(totals.rows_per_object);
        double sum = 0;
        for (std::size_t e = 0; e < experts; ++e) {
            const i64 count = global ? kGlobalCounts[e] : totals.host_counts[object * experts + e];
            sum += static_cast<double>(count) * totals.probability_sum[object * experts + e] / tokens;
        }
        const double object_loss =
            static_cast<double>(spec.experts) / (static_cast<double>(spec.top_k) * tokens) * sum;
        aux += tokens / kGlobalTokens * object_loss;
        z += totals.z_sum[object] / kGlobalTokens;
    }
    return spec.balance.aux * aux + spec.balance.z * z;
}

/// Calls check(spec) for every score, normalisation and scope.
template <class Check>
void for_each_router(Check check) {
    for (const RouterScore score : {RouterScore::softmax, RouterScore::softmax_over_top_k}) {
        for (const bool normalize : {false, true}) {
            for (const BalanceScope scope :
                 {BalanceScope::sequence, BalanceScope::micro, BalanceScope::global}) {
                SCOPED_TRACE(fmt::format("score {} normalize {} scope {}", static_cast<int>(score), normalize,
                                         static_cast<int>(scope)));
                ModelSpec spec = tiny_spec();
                spec.router.score = score;
                spec.router.normalize = normalize;
                spec.balance.scope = scope;
                check(spec);
            }
        }
    }
}

TEST(GradCheck, EveryRouter) {
    for (const RouterEntry& entry : router_table()) {
        for_each_router([&](ModelSpec spec) {
            spec.router.kind = entry.name;
            Bench bench(spec);
            const std::unique_ptr<Router> router = make_router(spec, 0, bench.store);
            const RouterAsLayer layer{*router};
            Tensor x = bench.input(spec.width);
            const Tensor counts = upload(bench.rank, kGlobalCounts, {1, spec.experts});
            GradCheck<RouterAsLayer> check{bench.rank, bench.store, layer, std::move(x), spec.seq_len};
            check.prepare = [&](RouterAsLayer::Saved& saved) { saved.target = {kGlobalTokens, counts}; };
            check.extra = [&](const RouterAsLayer::Saved& saved) {
                return balance_objective(spec, saved.router.totals);
            };
            check.run();
        });
    }
}

/// The local experts as a layer, with a fixed number of rows for each.
struct ExpertsAsLayer {
    using Saved = ExpertGroup::Saved;
    const ExpertGroup& experts;
    std::vector<i64> rows_per_expert;

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const {
        Tensor out = context.backend.allocate(in.x.shape, in.x.dtype);
        experts.forward(context, in.x, rows_per_expert, out, saved);
        return out;
    }
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const {
        Tensor dx = context.backend.allocate(in.x.shape, in.x.dtype);
        experts.backward(context, in.x, rows_per_expert, rows_per_expert, dy, dx, saved);
        return dx;
    }
};

TEST(GradCheck, ExpertGroupWithAnEmptyExpert) {
    Bench bench(tiny_spec());
    const ExpertGroup experts(bench.spec, 0, 0, 4, kTokens + 3, bench.store);
    const ExpertsAsLayer layer{experts, {4, 0, 10, 1}};
    GradCheck<ExpertsAsLayer>{bench.rank, bench.store, layer, bench.input(8)}.run();
}

void check_moe_layer(const ModelSpec& spec) {
    Bench bench(spec);
    const auto exchange = make_exchange(spec, bench.rank.mesh, bench.store.dtype());
    const MoELayer layer(spec, 0, bench.rank.mesh, *exchange, bench.store);
    Tensor x = bench.input(spec.width);
    const Tensor counts = upload(bench.rank, kGlobalCounts, {1, spec.experts});
    GradCheck<MoELayer> check{bench.rank, bench.store, layer, std::move(x), spec.seq_len};
    check.prepare = [&](MoELayer::Saved& saved) { saved.balance = {kGlobalTokens, counts}; };
    check.extra = [&](const MoELayer::Saved& saved) { return balance_objective(spec, saved.router.totals); };
    check.most_entries = 12;
    check.run();
}

TEST(GradCheck, MoELayer) {
    for_each_router(check_moe_layer);
}

TEST(GradCheck, MoELayerInSeveralRounds) {
    ModelSpec spec = tiny_spec();
    spec.receive_budget = 0.3;
    check_moe_layer(spec);
}

TEST(GradCheck, OutputHead) {
    for (const bool tied : {false, true}) {
        ModelSpec spec = tiny_spec();
        Bench bench(spec);
        const EmbeddingLayer embedding(spec, bench.store);
        const OutputHead layer(spec, tied ? embedding.table() : Weight(), bench.store);
        Tensor x = bench.input(spec.width);
        std::vector<i32> targets = whole_values("targets", kTokens, spec.vocabulary);
        targets[3] = -1;
        const Tensor target = upload(bench.rank, targets, {kTokens});
        GradCheck<OutputHead> check{bench.rank, bench.store, layer, std::move(x)};
        check.constant_projection = 0.25;
        check.prepare = [&](OutputHead::Saved& saved) {
            saved.target = target;
            saved.scale = 0.25;
        };
        check.run();
    }
}

void check_model(const ModelSpec& spec) {
    Bench bench(spec);
    Model model(spec, bench.rank.mesh, bench.store);
    allocate_with_noise(bench.rank, bench.store);
    const Tensor tokens = upload(bench.rank, whole_values("tokens", kTokens, spec.vocabulary), {kTokens});
    std::vector<i32> target_values = whole_values("targets", kTokens, spec.vocabulary);
    target_values[7] = -1;
    const Tensor targets = upload(bench.rank, target_values, {kTokens});
    const Batch batch{tokens, targets, 3, spec.seq_len};
    GlobalBatch global{.tokens = 20, .targets = 18, .expert_counts = {}};
    for (int layer = 0; layer < spec.expert_layers(); ++layer) {
        global.expert_counts.insert(global.expert_counts.end(), {3, 20, 10, 7});
    }
    const std::function<double()> objective = [&] {
        ModelSaved saved;
        const ForwardResult result = model.forward(bench.rank.context, batch, saved);
        const BalanceTerms terms = model.balance(saved, global);
        double loss = 0;
        for (const double one : bench.rank.read<double>(result.token_loss)) loss += one;
        return loss / 18 + spec.balance.aux * terms.aux + spec.balance.z * terms.z;
    };
    ModelSaved saved;
    (void)model.forward(bench.rank.context, batch, saved);
    std::vector<int> ready;
    model.backward(bench.rank.context, saved, global, [&](int segment) { ready.push_back(segment); });
    bench.rank.drain();
    EXPECT_EQ(ready, (std::vector<int>{3, 2, 1, 0}));
    for (const CheckedValues& one : checked_parameters(*bench.rank.compute, bench.store)) {
        check_against_differences(one, objective, 8);
    }
}

TEST(GradCheck, Model) {
    check_model(tiny_spec());
}

TEST(GradCheck, ModelTiedWithDenseLayers) {
    ModelSpec spec = tiny_spec();
    spec.tie_embeddings = true;
    spec.every = 2;
    spec.top_k = 1;
    spec.router.normalize = false;
    spec.qk_norm = QkNorm::head;
    spec.balance.scope = BalanceScope::global;
    check_model(spec);
}

}  // namespace
}  // namespace moesaic
