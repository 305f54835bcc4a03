// Loss and error of fixed shards of sequences under the current weights, and the gap between two shards.
#pragma once

#include <functional>
#include <vector>

#include "launch/rank_runtime.h"
#include "launch/run_setup.h"

namespace moesaic {

/// What each sequence of a shard scored; the same on every rank and layout.
struct ShardScores {
    std::vector<double> loss;   ///< mean over a sequence's targets, nats
    std::vector<double> error;  ///< share of targets that are not the likeliest token
    [[nodiscard]] double mean_loss() const;
    [[nodiscard]] double mean_error() const;
};

/// Fills windows first..first+count-1 of a shard, int32 [count, seq_len+1].
using WindowSource = std::function<void(i64 first, i64 count, i32* out)>;

/// Collective over the world. Evaluates `sequences` sequences in evaluation mode, `micro_sequences` at a time
/// per rank.
[[nodiscard]] ShardScores evaluate_shard(RankRuntime& runtime, const WindowSource& source, i64 sequences,
                                         i64 seq_len, i64 micro_sequences);

/// Collective over the world. evaluate_shard of windows of the run's data, held-out or training ones.
[[nodiscard]] ShardScores evaluate_windows(RankRuntime& runtime, const RunSetup& run,
                                           const std::vector<i64>& windows, bool heldout);

/// Generalization gap: held-out minus training loss, with a two-sided normal interval of confidence 1 - delta
/// that takes sequences as independent units (Welch: each shard has its own variance).
struct GapEstimate {
    double gap = 0, low = 0, high = 0;
};
[[nodiscard]] GapEstimate estimate_gap(const std::vector<double>& heldout, const std::vector<double>& train,
                                       double delta);

}  // namespace moesaic
