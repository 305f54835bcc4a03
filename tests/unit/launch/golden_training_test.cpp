// Ten training steps on every layout against an independent PyTorch implementation (tests/reference).
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/config/load.h"
#include "tests/support/source_folder.h"
#include "tests/support/training_run.h"

namespace moesaic {
namespace {

using nlohmann::json;

/// How close the numbers have to come, relative.
struct Tolerance {
    DType dtype = DType::f64;
    double first_loss = 1e-10, losses = 1e-10, norms = 1e-10, gradients = 1e-10, weights = 1e-10;
};
constexpr Tolerance kDouble;
constexpr Tolerance kSingle{DType::f32, 1e-5, 1e-5, 1e-5, 1e-5, 1e-4};

template <Element T>
std::vector<T> values_of(const SafetensorsFile& file, const std::string& name) {
    const ConstTensorView view = file.at(name).view();
    return {view.as<T>(), view.as<T>() + view.elements()};
}

/// Tensors of a fixture whose names begin with `prefix`, without it.
LogicalTensors tensors_of(const SafetensorsFile& file, const std::string& prefix) {
    LogicalTensors tensors;
    for (const SafetensorsEntry& entry : file.entries()) {
        if (!entry.name.starts_with(prefix)) continue;
        tensors[entry.name.substr(prefix.size())] = values_of<double>(file, entry.name);
    }
    return tensors;
}

void put_weights(RankRuntime& runtime, const LogicalTensors& weights) {
    for (Parameter& parameter : runtime.store.parameters()) {
        const std::vector<double>& values = weights.at(parameter.name);
        ASSERT_EQ(static_cast<i64>(values.size()), parameter.value.elements()) << parameter.name;
        if (runtime.store.dtype() == DType::f64) {
            std::copy(values.begin(), values.end(), parameter.value.as<double>());
        } else {
            std::transform(values.begin(), values.end(), parameter.value.as<float>(),
                           [](double value) { return static_cast<float>(value); });
        }
    }
}

/// The fixture's own options, weights and batches; the configuration is read as a user's would be.
TrainingRun training_run(const SafetensorsFile& file) {
    json options = json::parse(file.metadata().at("options"));
    const i64 vocabulary = options.at("vocab_size");
    options.erase("vocab_size");  // follows from the tokenizer elsewhere
    LoadedConfig loaded = parse_config(options.dump(), "options of the fixture");
    loaded.diagnostics.throw_if_any();
    TrainingRun run;
    run.config = loaded.config;
    run.config.parallel.bucket_bytes = 4096;  // several buckets even in a tiny model
    run.spec = resolve_model(run.config, vocabulary);
    const i64 columns = run.spec.seq_len + 1, sequences = run.config.train.batch_sequences;
    run.batches = [tokens = values_of<i32>(file, "tokens"), columns, sequences](
                      i64 step, i64 first, i64 count, WindowBuffer windows) {
        std::copy_n(tokens.begin() + ((step - 1) * sequences + first) * columns, count * columns,
                    windows.tokens);
    };
    run.before = [weights = tensors_of(file, "weight.")](RankRuntime& runtime) {
        put_weights(runtime, weights);
    };
    return run;
}

/// The largest difference of a kind seen so far, for the test's report.
struct Worst {
    double difference = 0;
    std::string where;

    void see(double one, double limit, const std::string& name) {
        EXPECT_LE(one, limit) << name;
        if (one <= difference) return;
        difference = one;
        where = name;
    }
    [[nodiscard]] std::string text() const { return fmt::format("{:.1e} {}", difference, where); }
};

struct Report {
    Worst first_loss, losses, norms, gradients, weights;
};

void compare_tensors(Worst& worst, double limit, const LogicalTensors& got, const LogicalTensors& want) {
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, values] : want) {
        ASSERT_TRUE(got.contains(name)) << name;
        worst.see(relative_l2(got.at(name), values), limit, name);
    }
}

void compare(const TrainingOutcome& outcome, const SafetensorsFile& file, const Tolerance& tolerance,
             Report& report) {
    const auto relative = [&](double value, const std::string& name, std::size_t step) {
        const double want = values_of<double>(file, name)[step];
        return std::abs(value - want) / std::abs(want);
    };
    const std::vector<i32> counts = values_of<i32>(file, "expert_count");
    const bool importance = file.find("loss_importance") != nullptr, drops = file.find("dropped") != nullptr;
    ASSERT_EQ(outcome.steps.size(), values_of<double>(file, "loss").size());
    for (std::size_t i = 0; i < outcome.steps.size(); ++i) {
        const StepResult& step = outcome.steps[i];
        const std::string at = fmt::format("step {}", i + 1);
        if (i == 0) report.first_loss.see(relative(step.loss, "loss", i), tolerance.first_loss, at);
        report.losses.see(relative(step.loss, "loss", i), tolerance.losses, "loss, " + at);
        report.losses.see(relative(step.loss_aux, "loss_aux", i), tolerance.losses, "loss_aux, " + at);
        report.losses.see(relative(step.loss_z, "loss_z", i), tolerance.losses, "loss_z, " + at);
        if (importance) {
            report.losses.see(relative(step.loss_importance, "loss_importance", i), tolerance.losses,
                              "loss_importance, " + at);
        }
        for (std::size_t layer = 0; layer < step.dropped.size(); ++layer) {
            EXPECT_EQ(step.dropped[layer],
                      drops ? values_of<i32>(file, "dropped")[i * step.dropped.size() + layer] : 0)
                << at;
        }
        report.norms.see(relative(step.grad_norm, "grad_norm", i), tolerance.norms, at);
        for (std::size_t e = 0; e < step.expert_counts.size(); ++e) {
            EXPECT_EQ(step.expert_counts[e], counts[i * step.expert_counts.size() + e]) << at;
        }
    }
    compare_tensors(report.gradients, tolerance.gradients, outcome.gradients, tensors_of(file, "grad."));
    compare_tensors(report.weights, tolerance.weights, outcome.weights, tensors_of(file, "after."));
}

class GoldenTraining : public testing::TestWithParam<const char*> {
  protected:
    void train_everywhere(const Tolerance& tolerance) {
        const SafetensorsFile file = SafetensorsFile::open(
            fmt::format("{}/tests/reference/fixtures/{}.safetensors", MOESAIC_SOURCE_DIR, GetParam()));
        TrainingRun run = training_run(file);
        run.options.dtype = tolerance.dtype;
        Report report;
        for (const auto& [world, expert_parallel] : {std::pair{1, 1}, {2, 1}, {2, 2}, {4, 2}, {4, 4}}) {
            SCOPED_TRACE(fmt::format("{} ranks, expert-parallel {}", world, expert_parallel));
            run.world = world;
            run.options.expert_parallel = expert_parallel;
            compare(train(run), file, tolerance, report);
        }
        RecordProperty("worst_first_loss", report.first_loss.text());
        RecordProperty("worst_loss", report.losses.text());
        RecordProperty("worst_norm", report.norms.text());
        RecordProperty("worst_gradient", report.gradients.text());
        RecordProperty("worst_weight", report.weights.text());
    }
};

TEST_P(GoldenTraining, DoublePrecisionEqualsPyTorch) {
    train_everywhere(kDouble);
}

TEST_P(GoldenTraining, SinglePrecisionFollowsPyTorch) {
    train_everywhere(kSingle);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenTraining,
                         testing::Values("mixtral", "olmoe", "qwen3_moe", "tied_every2", "gshard_drop",
                                         "hf_position", "switch_global"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace moesaic
