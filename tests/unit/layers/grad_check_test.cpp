// Every layer's backward against finite differences: a new layer joins with a line.
#include "tests/support/grad_check.h"

#include <array>

#include "layers/attention_layer.h"
#include "layers/dense_feed_forward.h"
#include "layers/embedding.h"
#include "layers/expert_group.h"
#include "layers/output_head.h"
#include "layers/rms_norm_layer.h"
#include "layers/router.h"
#include "tests/support/grad_bench.h"
#include "tests/support/router_variants.h"

namespace moesaic {
namespace {

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

/// Calls check(spec) for every activation.
template <class Check>
void for_each_activation(Check check) {
    for (const ActivationEntry& entry : kActivations) {
        SCOPED_TRACE(entry.name);
        ModelSpec spec = tiny_spec();
        spec.activation = entry.kind;
        check(spec);
    }
}

TEST(GradCheck, DenseFeedForward) {
    for_each_activation([](const ModelSpec& spec) {
        Bench bench(spec);
        const DenseFeedForward layer(bench.spec, 0, bench.store);
        GradCheck<DenseFeedForward> check{bench.rank, bench.store, layer, bench.input(8)};
        check.step = 1e-5;  // no hidden value is that close to a kink
        check.run();
    });
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

/// The load loss as a whole: coefficient, scope and the squared coefficient of variation included.
TEST(GradCheck, LoadLossOfNoise) {
    for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro}) {
        SCOPED_TRACE(static_cast<int>(scope));
        ModelSpec spec = tiny_spec();
        use_variant({"noisy_top_k", 2, {}}, spec);
        spec.balance.scope = scope;
        spec.balance.load = 0.9;
        check_router(spec, [&](Bench&, GradCheck<RouterAsLayer>& check) {
            check.extra = [&spec](const RouterAsLayer::Saved& saved) {
                const RouterTotals& totals = saved.router.totals;
                const auto experts = static_cast<std::size_t>(spec.experts);
                double sum = balance_objective(spec, totals);
                for (std::size_t first = 0; first < totals.load_sum.size(); first += experts) {
                    double mean = 0, square = 0;
                    for (std::size_t e = first; e < first + experts; ++e) {
                        mean += totals.load_sum[e] / static_cast<double>(experts);
                        square += totals.load_sum[e] * totals.load_sum[e] / static_cast<double>(experts);
                    }
                    const double share = static_cast<double>(totals.rows_per_object) / kGlobalTokens;
                    sum += spec.balance.load * share * (square / (mean * mean) - 1);
                }
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
        Tensor out = context.backend.allocate(in.x.shape, in.x.dtype);
        experts.forward(context, {in.x}, rows_per_expert, out, saved);
        return out;
    }
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const {
        Tensor dx = context.backend.allocate(in.x.shape, in.x.dtype);
        experts.backward(context, {in.x}, rows_per_expert, rows_per_expert, {dy}, dx, saved);
        return dx;
    }
};

TEST(GradCheck, ExpertGroupWithAnEmptyExpert) {
    for_each_activation([](const ModelSpec& spec) {
        Bench bench(spec);
        const ExpertGroup experts(bench.spec, 0, std::array{0, 1, 2, 3}, {}, kTokens + 3, bench.store);
        const ExpertsAsLayer layer{experts, {4, 0, 10, 1}};
        GradCheck<ExpertsAsLayer> check{bench.rank, bench.store, layer, bench.input(8)};
        check.step = 1e-5;
        check.run();
    });
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

}  // namespace
}  // namespace moesaic
