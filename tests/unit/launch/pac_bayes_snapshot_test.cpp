// Noisy weights: drawn around the right place, with the right spread, and the same bits on every layout.
#include "launch/pac_bayes_snapshot.h"
#include "launch/checkpointer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "comm/thread_communicator.h"
#include "launch/checkpointer.h"
#include "runtime/base/philox.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/tiny_run.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using Weights = std::map<std::string, std::vector<float>>;

class NoisyWeightsTest : public ::testing::Test {
  protected:
    /// Checkpoints of steps 0 and 1: the initial weights, and those plus 0.01 times N(0,1).
    void SetUp() override {
        on_ranks(1, [&](RankRuntime& runtime) {
            prior_ = values_of(runtime);
            (void)save_checkpoint(runtime, folder_.path(), {0, 0}, run_.config);
            for (Parameter& parameter : runtime.store.parameters()) {
                const Philox random(5, parameter.name);
                auto* const values = parameter.value.as<float>();
                for (i64 i = 0; i < parameter.value.elements(); ++i)
                    values[i] += static_cast<float>(0.01 * random.normal(static_cast<u64>(i)));
            }
            trained_ = values_of(runtime);
            (void)save_checkpoint(runtime, folder_.path(), {1, 1}, run_.config);
        });
    }

    void on_ranks(int world, const std::function<void(RankRuntime&)>& body) const {
        run_ranks(
            world,
            [&](Communicator& ranks) {
                RankRuntime runtime(run_.config, run_.spec, ranks, {});
                body(runtime);
            },
            60);
    }

    [[nodiscard]] static Weights values_of(RankRuntime& runtime) {
        runtime.compute->synchronize();
        Weights weights;
        for (const Parameter& parameter : runtime.store.parameters()) {
            const auto* const values = parameter.value.as<float>();
            weights[parameter.name] = {values, values + parameter.value.elements()};
        }
        return weights;
    }

    [[nodiscard]] std::string checkpoint(i64 step) const {
        return checkpoints_folder(folder_.path()) + "/" + step_folder_name(step);
    }
    [[nodiscard]] static double unit_of(const std::vector<float>& prior) {
        double squares = 0;
        for (const double value : prior) squares += value * value;
        return std::max(0.01, std::sqrt(squares / static_cast<double>(prior.size())));
    }

    /// The draws of the posterior on `world` ranks, put together; replicas are found to be the same.
    [[nodiscard]] std::vector<Weights> draw(int world, const SnapshotPosterior& posterior, i64 count,
                                            double& distance) const {
        std::vector<Weights> draws(static_cast<std::size_t>(count));
        std::mutex mutex;
        on_ranks(world, [&](RankRuntime& runtime) {
            NoisyWeights weights(runtime, checkpoint(0), checkpoint(1), 7);
            for (i64 i = 0; i < count; ++i) {
                weights.draw(posterior, i);
                const Weights mine = values_of(runtime);
                const std::lock_guard lock(mutex);
                for (const auto& [name, values] : mine) {
                    const auto [at, is_new] = draws[static_cast<std::size_t>(i)].emplace(name, values);
                    EXPECT_TRUE(is_new || at->second == values) << name << " differs among its replicas";
                }
            }
            const std::lock_guard lock(mutex);
            distance = weights.squared_distance();
        });
        return draws;
    }

    RunSetup run_ = tiny_run();
    ScratchFolder folder_;
    Weights prior_, trained_;
};

TEST_F(NoisyWeightsTest, AreNormalAroundTheWayAndTheSameOnEveryLayout) {
    const SnapshotPosterior posterior{0.1, 0.25};
    double distance = 0;
    const std::vector<Weights> alone = draw(1, posterior, 3, distance);
    double expected = 0;
    for (const auto& [name, before] : prior_) {
        const std::vector<float>& after = trained_.at(name);
        const double unit = unit_of(before);
        double sum = 0, squares = 0, product = 0;
        for (std::size_t i = 0; i < before.size(); ++i) {
            const double moved = static_cast<double>(after[i]) - before[i];
            expected += moved * moved / (unit * unit);
            const double middle = before[i] + 0.25 * moved;
            const double first = (alone[0].at(name)[i] - middle) / (0.1 * unit);
            const double second = (alone[1].at(name)[i] - middle) / (0.1 * unit);
            sum += first;
            squares += first * first;
            product += first * second;
        }
        const auto count = static_cast<double>(before.size());
        const double five_deviations = 5 / std::sqrt(count);
        EXPECT_NEAR(sum / count, 0, five_deviations) << name;
        EXPECT_NEAR(squares / count, 1, 1.5 * five_deviations) << name;
        EXPECT_NEAR(product / count, 0, five_deviations) << name << ": draws are independent";
    }
    EXPECT_NEAR(distance, expected, 1e-9 * expected);
    for (const int world : {2, 4}) {
        double of_layout = 0;
        EXPECT_TRUE(draw(world, posterior, 3, of_layout) == alone) << world << " ranks";
        EXPECT_NEAR(of_layout, distance, 1e-12 * distance) << world << " ranks";
    }
}

TEST_F(NoisyWeightsTest, TheWayBeginsAtThePriorAndEndsAtTheTrainedWeights) {
    double distance = 0;
    EXPECT_TRUE(draw(2, {0, 0}, 1, distance).front() == prior_);
    const Weights end = draw(2, {0, 1}, 1, distance).front();
    for (const auto& [name, values] : end) {
        for (std::size_t i = 0; i < values.size(); ++i)
            ASSERT_NEAR(values[i], trained_.at(name)[i], 1e-7) << name << " " << i;
    }
}

TEST_F(NoisyWeightsTest, MeasurementsAreTheSameOnEveryLayout) {
    const RunSetup bounded = tiny_run({"train.batch_sequences=8"});
    std::vector<double> values;
    for (const int world : {1, 3}) {
        std::mutex mutex;
        on_ranks(world, [&](RankRuntime& runtime) {
            const SnapshotMeasurement measured =
                measure_snapshot(runtime, bounded, checkpoint(0), checkpoint(1), 2);
            const std::lock_guard lock(mutex);
            if (runtime.mesh->world().rank() == 0)
                values.push_back(measured.certificate.bounds.at("pac_bayes_kl_bits").terms.at("empirical"));
            EXPECT_EQ(measured.prior_step, 0);
            EXPECT_EQ(measured.step, 1);
        });
    }
    ASSERT_EQ(values.size(), 2u);
    EXPECT_NEAR(values[0], values[1], 1e-9);
}

}  // namespace
}  // namespace moesaic
