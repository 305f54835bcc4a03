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
#include "tests/support/balance_target.h"
#include "tests/support/router_variants.h"

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
    const ModelSpec& spec;

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const {
        saved.routing = router.route(context, in, saved.router);
        const RouterOutput output{saved.router.probability, saved.router.log_sum_exp,
                                  saved.router.load_probability};
        saved.router.totals = sum_router(context, spec, in.seq_len, output, saved.routing);
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

GlobalBalance global_balance() {
    return {.tokens = kGlobalTokens, .counts = kGlobalCounts, .weight = {}, .load = {}};
}

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

constexpr BalanceScope kScopes[] = {BalanceScope::sequence, BalanceScope::micro, BalanceScope::global};

/// Checks a router by itself; `change` may adapt the check and the balance target.
void check_router(const ModelSpec& spec,
                  const std::function<void(Bench&, GradCheck<RouterAsLayer>&)>& change) {
    Bench bench(spec);
    const std::unique_ptr<Router> router = make_router(spec, 0, bench.store);
    const RouterAsLayer layer{*router, spec};
    Tensor x = bench.input(spec.width);
    const Tensor ids = upload(bench.rank, whole_values("ids", kTokens, spec.vocabulary), {kTokens});
    GradCheck<RouterAsLayer> check{bench.rank, bench.store, layer, std::move(x), spec.seq_len, ids};
    LayerBalanceTarget target;
    check.before_backward = [&](RouterAsLayer::Saved& saved) {
        target = make_balance_target(bench.rank, spec, saved.router.totals, global_balance());
        saved.target = target.target;
    };
    check.extra = [&](const RouterAsLayer::Saved& saved) {
        return balance_objective(spec, saved.router.totals);
    };
    change(bench, check);
    check.run();
}

TEST(GradCheck, EveryRouter) {
    const SmallTrace trace(2, 2, 4);
    for (const RouterEntry& entry : router_table()) {
        const std::vector<RouterVariant> variants = router_variants(entry.name, trace.path());
        EXPECT_FALSE(variants.empty()) << entry.name << " has no line in tests/support/router_variants.h";
        for (const RouterVariant& variant : variants) {
            for (const BalanceScope scope : kScopes) {
                SCOPED_TRACE(fmt::format("{} scope {}", variant.name(), static_cast<int>(scope)));
                ModelSpec spec = tiny_spec();
                spec.balance.scope = scope;
                use_variant(variant, spec);
                check_router(spec, [](Bench&, GradCheck<RouterAsLayer>&) {});
            }
        }
    }
}

/// The load loss reaches the clean logits, the noise's size and the thresholds (Shazeer et al. 2017, eq. 9).
TEST(GradCheck, LoadProbabilitiesOfNoise) {
    for (const i64 top_k : {1, 2, 3}) {
        SCOPED_TRACE(top_k);
        ModelSpec spec = tiny_spec();
        use_variant({"noisy_top_k", top_k, {"normalize=false"}}, spec);
        spec.balance.load = 1;
        const std::vector<double> factors = normal_values("load factors", spec.experts);
        check_router(spec, [&](Bench& bench, GradCheck<RouterAsLayer>& check) {
            const auto on_device = std::make_shared<Tensor>(upload(bench.rank, factors, {1, spec.experts}));
            check.before_backward = [on_device](RouterAsLayer::Saved& saved) {
                saved.target.load_factor = *on_device;
                saved.target.rows_per_object = saved.router.totals.rows_per_object;
            };
            check.extra = [&](const RouterAsLayer::Saved& saved) {
                double sum = 0;
                for (std::size_t e = 0; e < factors.size(); ++e)
                    sum += factors[e] * saved.router.totals.load_sum[e];
                return sum;
            };
        });
    }
}

/// The local experts as a layer, with a fixed number of rows for each.
struct ExpertsAsLayer {
    using Saved = ExpertGroup::Saved;
    const ExpertGroup& experts;
    std::vector<i64> rows_per_expert;

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const {
        return only(context, experts.forward(context, in.x, rows_per_expert, saved), in.x);
    }
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const {
        return only(context, experts.backward(context, in.x, rows_per_expert, rows_per_expert, dy, saved),
                    in.x);
    }
    /// The rows in use.
    [[nodiscard]] static Tensor only(StepContext& context, const Tensor& buffer, ConstTensorView x) {
        Tensor y = context.backend.allocate(x.shape, x.dtype);
        context.backend.copy(context.compute, buffer.slice_rows(0, x.rows()), y);
        return y;
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
    const MoELayer layer(spec, 0, bench.rank.mesh, bench.store);
    Tensor x = bench.input(spec.width);
    GradCheck<MoELayer> check{bench.rank, bench.store, layer, std::move(x), spec.seq_len};
    LayerBalanceTarget target;
    check.before_backward = [&](MoELayer::Saved& saved) {
        target = make_balance_target(bench.rank, spec, saved.router.totals, global_balance());
        saved.balance = target.target;
    };
    check.extra = [&](const MoELayer::Saved& saved) { return balance_objective(spec, saved.router.totals); };
    check.most_entries = 12;
    check.run();
}

TEST(GradCheck, MoELayer) {
    for (const RouterVariant& variant : router_variants("top_k", "")) {
        for (const BalanceScope scope : kScopes) {
            SCOPED_TRACE(fmt::format("{} scope {}", variant.name(), static_cast<int>(scope)));
            ModelSpec spec = tiny_spec();
            spec.balance.scope = scope;
            use_variant(variant, spec);
            check_moe_layer(spec);
        }
    }
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

/// What needs the model around it: ids of tokens, noise, experts that choose, scores that are sigmoids.
TEST(GradCheck, ModelWithOtherRouters) {
    for (const RouterVariant& variant :
         {RouterVariant{"hash", 2, {}}, RouterVariant{"noisy_top_k", 2, {}},
          RouterVariant{"expert_choice", 2, {"allow_noncausal=true"}},
          RouterVariant{"sigmoid_bias", 2, {"scale=2.5"}}, RouterVariant{"nearest_prototype", 1, {}}}) {
        SCOPED_TRACE(variant.name());
        ModelSpec spec = tiny_spec();
        use_variant(variant, spec);
        if (!router_traits(spec.router).learns) spec.balance.aux = spec.balance.z = 0;
        check_model(spec);
    }
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
