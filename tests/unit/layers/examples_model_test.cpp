// Models of examples, whole: gradients of losses by finite differences in fp64, with classes and with values;
// and a MoMLP against plain loops.
#include <gtest/gtest.h>

#include <map>

#include "comm/self_communicator.h"
#include "layers/model.h"
#include "tests/support/grad_check.h"
#include "tests/support/rank_setup.h"

namespace moesaic {
namespace {

constexpr i64 kExamples = 7, kFeatures = 4;

ModelSpec examples_spec(ModelKind kind, LossKind loss) {
    ModelSpec spec;
    spec.kind = kind;
    spec.loss = loss;
    spec.features = kFeatures;
    spec.outputs = loss == LossKind::cross_entropy ? 3 : 2;
    spec.causal = false;
    spec.width = 6;
    spec.layers = 2;
    spec.hidden = 5;
    spec.dense_hidden = 5;
    spec.experts = 4;
    spec.top_k = 2;
    spec.activation = ActivationKind::gelu;
    spec.init_std = 0.3;
    spec.seq_len = 1;
    spec.micro_sequences = kExamples;
    spec.balance.aux = spec.balance.z = 0;  // the objective is the loss alone
    return spec;
}

/// A model on one rank with a batch of examples.
class ExamplesBench {
  public:
    explicit ExamplesBench(const ModelSpec& model_spec)
        : spec(model_spec),
          rank(world, 1, static_cast<int>(spec.experts)),
          store(*rank.backend, DType::f64),
          model(spec, rank.mesh, store) {
        allocate_with_noise(rank, store);
        features = upload(rank, normal_values("features", kExamples * kFeatures), {kExamples, kFeatures});
        targets = upload(rank, whole_values("targets", kExamples, spec.outputs), {kExamples});
        values = upload(rank, normal_values("values", kExamples * spec.outputs), {kExamples, spec.outputs});
        batch.sequences = kExamples;
        batch.seq_len = 1;
        batch.features = features;
        if (spec.loss == LossKind::cross_entropy) {
            batch.targets = targets;
        } else {
            batch.values = values;
        }
        if (spec.kind != ModelKind::momlp) return;
        // Expert 2 has no example; example 3 belongs to nobody here.
        cells = {0, 3, 1, -1, 1, 0, 1};
        order = upload(rank, std::vector<i32>{0, 5, 2, 4, 6, 1}, {6});
        slot = upload(rank, std::vector<i32>{0, 5, 2, -1, 3, 1, 4}, {kExamples, 1});
        batch.cells = {order, slot, rows_per_expert};
    }

    [[nodiscard]] double loss() {
        ModelSaved saved;
        const ForwardResult result = model.forward(rank.context, batch, saved);
        const std::vector<double> losses = rank.read<double>(result.token_loss);
        double sum = 0;
        for (std::size_t i = 0; i < losses.size(); ++i)
            if (cells.empty() || cells[i] >= 0) sum += losses[i];
        return sum / static_cast<double>(kExamples);
    }

    void expect_gradients() {
        store.zero_gradients(*rank.compute);
        ModelSaved saved;
        (void)model.forward(rank.context, batch, saved);
        GlobalBatch global;
        global.tokens = global.targets = kExamples;
        std::vector<int> segments;
        model.backward(rank.context, saved, global, [&](int segment) { segments.push_back(segment); });
        EXPECT_EQ(std::ssize(segments), model.segments());
        for (int segment = 0; segment < model.segments(); ++segment)
            store.fold_segment(*rank.compute, segment);
        const auto checked = checked_parameters(*rank.compute, store);
        EXPECT_GE(checked.size(), 5u);
        for (const CheckedValues& one : checked)
            check_against_differences(
                one, [&] { return loss(); }, 40, 1e-4);
    }

    ModelSpec spec;
    SelfCommunicator world;
    RankSetup rank;
    ParameterStore store;
    Model model;
    Tensor features, targets, values, order, slot;
    std::vector<i32> cells;
    std::vector<i64> rows_per_expert{2, 3, 0, 1};
    Batch batch;
};

TEST(ExamplesModel, GradientsOfMlps) {
    for (const LossKind loss : {LossKind::cross_entropy, LossKind::squared_error}) {
        for (const bool residual : {true, false}) {
            for (const i64 experts : {4, 0}) {
                for (const bool recompute : {false, true}) {
                    SCOPED_TRACE(fmt::format("loss {} residual {} experts {} recompute {}",
                                             static_cast<int>(loss), residual, experts, recompute));
                    ModelSpec spec = examples_spec(ModelKind::mlp, loss);
                    spec.residual = residual;
                    spec.experts = experts;
                    spec.recompute = recompute;
                    ExamplesBench(spec).expect_gradients();
                }
            }
        }
    }
}

TEST(ExamplesModel, GradientsOfMomlps) {
    for (const LossKind loss : {LossKind::cross_entropy, LossKind::squared_error}) {
        for (const ActivationKind activation : {ActivationKind::gelu, ActivationKind::prelu}) {
            SCOPED_TRACE(
                fmt::format("loss {} activation {}", static_cast<int>(loss), static_cast<int>(activation)));
            ModelSpec spec = examples_spec(ModelKind::momlp, loss);
            spec.activation = activation;
            ExamplesBench bench(spec);
            // An example that is elsewhere: its outputs are 0, and so is what is asked of it.
            bench.targets.as<i32>()[3] = -1;
            for (i64 i = 0; i < spec.outputs; ++i) bench.values.as<double>()[3 * spec.outputs + i] = 0;
            bench.expect_gradients();
        }
    }
}

/// The loss of one example by its own expert's weights, in plain loops.
double oracle_loss(ExamplesBench& bench, i64 example, i32 expert) {
    std::map<std::string, const double*> weights;
    for (const Parameter& parameter : bench.store.parameters())
        weights[parameter.name] = parameter.value.as<double>();
    const auto weight = [&](const std::string& name) {
        return weights.at(fmt::format("model.experts.{}.{}", expert, name));
    };
    const double* const x = bench.features.as<double>() + example * kFeatures;
    std::vector<double> input(x, x + kFeatures);
    const auto linear = [&](const std::string& place, i64 outputs) {
        std::vector<double> sums(static_cast<std::size_t>(outputs), 0.0);
        for (std::size_t o = 0; o < sums.size(); ++o) {
            for (std::size_t i = 0; i < input.size(); ++i)
                sums[o] += weight(place + ".weight")[o * input.size() + i] * input[i];
            if (place != "layers.0") sums[o] += weight(place + ".bias")[o];
        }
        input = sums;
    };
    for (int layer = 0; layer < bench.spec.layers; ++layer) {
        const std::string place = fmt::format("layers.{}", layer);
        linear(place, bench.spec.width);
        for (double& value : input) value = value > 0 ? value : *weight(place + ".act_fn") * value;
    }
    linear("output", bench.spec.outputs);
    double sum = 0;
    for (std::size_t o = 0; o < input.size(); ++o)
        sum += std::pow(input[o] - bench.values.as<double>()[example * 2 + static_cast<i64>(o)], 2) / 2;
    return sum;
}

TEST(ExamplesModel, AMomlpIsTheMlpOfEachExamplesCell) {
    ModelSpec spec = examples_spec(ModelKind::momlp, LossKind::squared_error);
    spec.activation = ActivationKind::prelu;
    ExamplesBench bench(spec);
    ModelSaved saved;
    const ForwardResult result = bench.model.forward(bench.rank.context, bench.batch, saved);
    const std::vector<double> losses = bench.rank.read<double>(result.token_loss);
    for (i64 i = 0; i < kExamples; ++i) {
        const i32 expert = bench.cells[static_cast<std::size_t>(i)];
        if (expert < 0) continue;
        EXPECT_NEAR(losses[static_cast<std::size_t>(i)], oracle_loss(bench, i, expert), 1e-12) << i;
    }
    ASSERT_EQ(result.routers.size(), 1u);
    EXPECT_EQ(result.routers[0].counts, (std::vector<i64>{2, 3, 0, 1}));
}

/// Without a causal mask the first row hears of the last.
TEST(ExamplesModel, OnlyCausalAttentionKeepsTheFuture) {
    for (const bool causal : {true, false}) {
        ModelSpec spec = examples_spec(ModelKind::transformer, LossKind::cross_entropy);
        spec.features = 0;
        spec.vocabulary = 5;
        spec.causal = causal;
        spec.heads = spec.kv_heads = 1;
        spec.head_dim = 6;
        spec.seq_len = kExamples;
        spec.micro_sequences = 1;
        SelfCommunicator world;
        RankSetup rank(world, 1, 4);
        ParameterStore store(*rank.backend, DType::f64);
        Model model(spec, rank.mesh, store);
        allocate_with_noise(rank, store);
        const auto first_logits = [&](i32 last) {
            std::vector<i32> ids{0, 1, 2, 3, 4, 0, last};
            const Tensor tokens = upload(rank, ids, {kExamples});
            Batch batch;
            batch.tokens = batch.targets = tokens;
            batch.sequences = 1;
            batch.seq_len = kExamples;
            rank.context.phase = Phase::evaluate;
            return rank.read<double>(model.logits(rank.context, batch).slice_rows(0, 1));
        };
        EXPECT_EQ(first_logits(1) == first_logits(2), causal);
        EXPECT_EQ(first_logits(1).size(), 3u) << "outputs, not token ids";
    }
}

}  // namespace
}  // namespace moesaic
