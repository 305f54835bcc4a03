// PAC-Bayes from two checkpoints of a run: noisy weights around the way from one to the other, and their
// losses.
#pragma once

#include <string>
#include <vector>

#include "launch/checkpoint_loading.h"
#include "launch/run_setup.h"
#include "runtime/metrics/snapshot_certificate.h"

namespace moesaic {

/// The weights of two checkpoints on one rank, and models drawn around them. What is drawn is a function of
/// (seed, parameter, number of the draw, element), never of the layout.
class NoisyWeights {
  public:
    /// Collective over the world. Buffers, such as a router's selection biases, stay the prior's: they are
    /// weights that nothing is drawn for.
    NoisyWeights(RankRuntime& runtime, const std::string& prior, const std::string& trained, u64 seed);

    [[nodiscard]] const TrainingPosition& prior() const { return prior_; }
    [[nodiscard]] const TrainingPosition& trained() const { return trained_; }
    /// SnapshotOptions::squared_distance of the whole model; s is a tensor's root mean square in the prior,
    /// at least 0.01.
    [[nodiscard]] double squared_distance() const { return squared_distance_; }
    /// Puts draw `number` of the posterior into the runtime's parameters, which are f32.
    void draw(const SnapshotPosterior& posterior, i64 number);

  private:
    struct Values {
        std::vector<float> prior, trained;
        double unit = 1;  // s
    };

    RankRuntime& runtime_;
    u64 seed_;
    TrainingPosition prior_, trained_;
    std::vector<Values> values_;  // by parameter
    std::vector<float> drawn_;
    double squared_distance_ = 0;
};

/// task.data.training_share of the run that wrote the checkpoint.
[[nodiscard]] double share_of_training(const std::string& checkpoint);

/// The run's checkpoint that is the best prior known: the newest within the first 0.7 of the first epoch and
/// before the trained one, or that of step 0; of a run on a share of its data the trained one itself.
/// UserError where there is none.
[[nodiscard]] std::string choose_prior(const std::string& trained, const RunSetup& run);

struct SnapshotMeasurement {
    i64 step = 0, prior_step = 0;
    SnapshotOptions options;
    SnapshotCertificate certificate;
};

/// Collective over the world. `run` has all training data (task.data.training_share 1). Leaves the last draw
/// in the runtime. UserError where the losses have no bound, or where the prior has met all training data, or
/// other data than the trained weights.
[[nodiscard]] SnapshotMeasurement measure_snapshot(RankRuntime& runtime, const RunSetup& run,
                                                   const std::string& prior, const std::string& trained,
                                                   i64 draws);

}  // namespace moesaic
