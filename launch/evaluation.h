// Loss and error of fixed shards of sequences under the current weights, and the gap between two shards.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launch/batch_windows.h"
#include "launch/micro_batches.h"
#include "launch/rank_runtime.h"
#include "launch/run_setup.h"
#include "runtime/metrics/margin_histogram.h"
#include "runtime/metrics/unit_losses.h"

namespace moesaic {

/// What each sequence of a shard scored; the same on every rank and layout. Of examples a sequence is one.
struct ShardScores {
    std::vector<double> loss;         ///< mean over a sequence's targets; of cross-entropy in nats
    std::vector<double> error;        ///< as `measure` says
    std::vector<double> weight;       ///< share of a sequence's targets that are not masked
    std::vector<double> share_wrong;  ///< share of targets that another answer ties or beats; cross-entropy
    /// Every loss of each unit: of the sequence, or of the document (ShardOptions::documents); of the squared
    /// error the raw one alone.
    std::vector<UnitScores> units;
    bool by_document = false;
    MarginHistogram margins;  ///< of all targets; empty for the squared error
    SampleError measure = SampleError::share_wrong;
    [[nodiscard]] double mean_loss() const;   ///< over all targets
    [[nodiscard]] double mean_error() const;  ///< of distances the root of the mean square
    [[nodiscard]] double mean_share_wrong() const;
};

/// Fills samples first..first+count-1 of a shard.
using WindowSource = std::function<void(i64 first, i64 count, WindowBuffer out)>;

/// Sees a rank's part of every micro-batch of an evaluation: its windows as loaded, what the forward said of
/// them, and what the head read [T,H], empty where no norm comes before it.
using FeatureVisitor = std::function<void(const MicroBatches::Part&, const BatchWindows&,
                                          const ForwardResult&, ConstTensorView features)>;

struct ShardOptions {
    i64 sequences = 0;
    i64 micro_sequences = 1;  ///< at a time per rank
    bool document_mask = false;
    RoutingObserver* observer = nullptr;  ///< of every micro-batch, see StepContext
    SampleError measure = SampleError::share_wrong;
    double distance_unit = 1;  ///< that errors of measure `distance` are multiplied by
    LossScales scales = {};
    const DocumentUnits* documents = nullptr;  ///< the shard's, where these are its units
    FeatureVisitor visitor = {};
};

/// generalization.smoothing, margin and clip for the run's model and task.
[[nodiscard]] LossScales loss_scales(const RunSetup& run);

/// Why losses of the training forward are not those of an evaluation; empty: they are.
[[nodiscard]] std::string why_training_forward_differs(const ModelSpec& spec);

/// Collective over the world. Evaluates all sequences of a shard in evaluation mode.
[[nodiscard]] ShardScores evaluate_shard(RankRuntime& runtime, const WindowSource& source,
                                         const ShardOptions& shard);

/// Collective over the world. evaluate_shard of windows of the run's data, held-out or training ones.
[[nodiscard]] ShardScores evaluate_windows(RankRuntime& runtime, const RunSetup& run,
                                           const std::vector<i64>& windows, bool heldout,
                                           RoutingObserver* observer = nullptr,
                                           const DocumentUnits* documents = nullptr,
                                           const FeatureVisitor& visitor = {});

/// The part of a held-out shard that comes from one source or file.
struct DomainScore {
    std::string name;
    double loss = 0, error = 0;
    i64 sequences = 0;
};
/// One score for each of the data's domains that has a window among `windows`, which `heldout` scores.
[[nodiscard]] std::vector<DomainScore> scores_by_domain(const TaskData& data, const std::vector<i64>& windows,
                                                        const ShardScores& heldout);

/// Generalization gap: held-out minus training loss, with a two-sided normal interval of confidence 1 - delta
/// of the shard's units, sequences or documents (Welch: each shard has its own variance; of documents, which
/// have unequal numbers of targets, that of the ratio).
struct GapEstimate {
    double gap = 0, low = 0, high = 0;
};
[[nodiscard]] GapEstimate estimate_gap(const ShardScores& heldout, const ShardScores& train, double delta);

}  // namespace moesaic
