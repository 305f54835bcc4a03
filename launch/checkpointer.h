// Saves and restores a training run: one shard per rank, one entry per logical tensor, a manifest written
// last.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "launch/rank_runtime.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/metrics/records.h"

namespace moesaic {

/// Where training stands.
struct TrainingPosition {
    i64 step = 0;                                               ///< finished steps
    i64 tokens = 0;                                             ///< seen so far
    std::map<std::string, std::vector<double>> observers = {};  ///< see Manifest
};

/// Collective over the world. Writes RUN/checkpoints/step-…: every rank its share of the weights and moments,
/// rank 0 the manifest, `latest`, and the pruning of old ones. Where a rank cannot write, its Error names the
/// file; what was saved before stays. `config` and the fingerprint of the `tokenizer` go into
/// the manifest. The record is complete on rank 0.
CheckpointRecord save_checkpoint(RankRuntime& runtime, const std::string& run_folder,
                                 const TrainingPosition& position, const Config& config,
                                 const std::string& tokenizer = "");

/// Host memory that this rank's part of the optimizer's state takes while save_checkpoint writes it.
[[nodiscard]] i64 checkpoint_copy_bytes(const RankRuntime& runtime);

/// Collective over the world. Verifies all shards (shared out among the ranks), then reads this rank's
/// parameters and, with `with_optimizer`, its part of the optimizer's state, whichever layout and precision
/// wrote them: other floating-point types are converted. A checkpoint of step 0 without any moments leaves
/// them at zero.
TrainingPosition load_checkpoint(RankRuntime& runtime, const std::string& folder, bool with_optimizer);

}  // namespace moesaic
