// The backward of the mixture of experts and of the whole model against finite differences: every balance
// loss, every capacity.
#include "layers/model.h"
#include "tests/support/grad_bench.h"
#include "tests/support/router_variants.h"

namespace moesaic {
namespace {

/// Calls check(spec) for every convention and scope of the balance losses.
template <class Check>
void for_each_balance(Check check) {
    for (const BalanceConvention convention :
         {BalanceConvention::megatron, BalanceConvention::gshard, BalanceConvention::hf,
          BalanceConvention::switch_transformer}) {
        for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro, BalanceScope::global}) {
            SCOPED_TRACE(fmt::format("convention {} scope {}", name_of(convention), static_cast<int>(scope)));
            ModelSpec spec = tiny_spec();
            spec.balance.convention = convention;
            spec.balance.scope = scope;
            // Weights that sum to 1 have an importance as well, and a softmax over all experts' more.
            spec.router.normalize = convention == BalanceConvention::gshard;
            if (scope != BalanceScope::global) spec.balance.importance = 0.9;
            check(spec);
        }
    }
}

/// Calls check(spec) for capacities that drop some of the choices.
template <class Check>
void for_each_capacity(Check check) {
    for (const DropPolicy policy : {DropPolicy::probability, DropPolicy::position}) {
        for (const CapacityScope per : {CapacityScope::sequence, CapacityScope::micro}) {
            for (const bool renormalize : {false, true}) {
                for (const bool normalize : {false, true}) {
                    SCOPED_TRACE(fmt::format("policy {} per {} renormalize {} normalize {}",
                                             static_cast<int>(policy), static_cast<int>(per), renormalize,
                                             normalize));
                    ModelSpec spec = tiny_spec();
                    spec.top_k = 3;
                    spec.router.normalize = normalize;
                    spec.capacity =
                        CapacitySpec{.factor = 0.6, .policy = policy, .per = per, .renormalize = renormalize};
                    check(spec);
                }
            }
        }
    }
}

void check_moe_layer(const ModelSpec& spec) {
    Bench bench(spec);
    const auto exchange = make_exchange(spec, bench.rank.mesh, bench.store.dtype());
    const MoELayer layer(spec, 0, bench.rank.mesh, *exchange, bench.store);
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
        for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro, BalanceScope::global}) {
            SCOPED_TRACE(fmt::format("{} scope {}", variant.name(), static_cast<int>(scope)));
            ModelSpec spec = tiny_spec();
            spec.balance.scope = scope;
            use_variant(variant, spec);
            check_moe_layer(spec);
        }
    }
}

TEST(GradCheck, MoELayerWithEveryBalanceLoss) {
    for_each_balance(check_moe_layer);
}

TEST(GradCheck, MoELayerWithEveryCapacity) {
    for_each_capacity(check_moe_layer);
}

TEST(GradCheck, MoELayerWithPaddedExperts) {
    ModelSpec spec = tiny_spec();
    spec.capacity = CapacitySpec{.factor = 0.8, .renormalize = true, .pad = true};
    check_moe_layer(spec);
}

TEST(GradCheck, MoELayerWithSharedExperts) {
    for (const bool gate : {false, true}) {
        ModelSpec spec = tiny_spec();
        spec.shared_experts = 2;
        spec.shared_gate = gate;
        check_moe_layer(spec);
    }
}

TEST(GradCheck, MoELayerInSeveralRounds) {
    ModelSpec spec = tiny_spec();
    spec.receive_budget = 0.3;
    check_moe_layer(spec);
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
    GlobalBatch global{
        .tokens = 20, .targets = 18, .expert_counts = {}, .expert_weights = {}, .expert_loads = {}};
    for (int layer = 0; layer < spec.expert_layers(); ++layer) {
        global.expert_counts.insert(global.expert_counts.end(), {3, 20, 10, 7});
    }
    const std::function<double()> objective = [&] {
        ModelSaved saved;
        const ForwardResult result = model.forward(bench.rank.context, batch, saved);
        const BalanceTerms terms = model.balance(saved, global);
        double loss = 0;
        for (const double one : bench.rank.read<double>(result.token_loss)) loss += one;
        return loss / 18 + spec.balance.aux * terms.aux + spec.balance.z * terms.z +
               spec.balance.importance * terms.importance;
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

/// Layers coupled by convention hf, drops, and a forward repeated in the backward.
TEST(GradCheck, ModelWithEveryBalanceLossAndCapacity) {
    for (const bool recompute : {false, true}) {
        for_each_balance([&](ModelSpec spec) {
            spec.capacity = CapacitySpec{.factor = 0.8, .renormalize = true};
            spec.recompute = recompute;
            check_model(spec);
        });
    }
}

/// What needs the model around it: ids of tokens, noise, experts that choose, scores that are sigmoids.
TEST(GradCheck, ModelWithOtherRouters) {
    for (const RouterVariant& variant :
         {RouterVariant{"hash", 2, {}}, RouterVariant{"noisy_top_k", 2, {}},
          RouterVariant{"switch", 1, {"jitter=0.2"}},
          RouterVariant{"expert_choice", 2, {"allow_noncausal=true"}},
          RouterVariant{"sigmoid_bias", 2, {"scale=2.5"}}, RouterVariant{"nearest_prototype", 1, {}}}) {
        SCOPED_TRACE(variant.name());
        ModelSpec spec = tiny_spec();
        use_variant(variant, spec);
        if (!router_traits(spec.router).learns) spec.balance.aux = spec.balance.z = 0;
        check_model(spec);
    }
}

TEST(GradCheck, ModelWithSharedExpertsRecomputed) {
    ModelSpec spec = tiny_spec();
    spec.shared_experts = 1;
    spec.shared_gate = true;
    spec.recompute = true;
    check_model(spec);
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
