// From a checkpoint back to a training run, and which checkpoint to go on from.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "launch/rank_runtime.h"
#include "runtime/checkpoint/checkpoint_reader.h"

namespace moesaic {

/// Where training stands.
struct TrainingPosition {
    i64 step = 0;                                               ///< finished steps
    i64 tokens = 0;                                             ///< seen so far
    std::map<std::string, std::vector<double>> observers = {};  ///< see Manifest
};

/// Collective over the world. Verifies all shards (shared out among the ranks) unless they are `verified`,
/// then reads this rank's parameters and, with `with_optimizer`, its part of the optimizer's state, whichever
/// layout and precision wrote them: other floating-point types are converted. A checkpoint of step 0 without
/// any moments leaves them at zero. One that lacks a tensor of the model, or holds another, is a UserError.
TrainingPosition load_checkpoint(RankRuntime& runtime, const std::string& folder, bool with_optimizer,
                                 bool verified = false);

/// Collective over `world`. The newest checkpoint of the run whose files are all as they were written: the
/// one that `latest` names, or the next older one, with a warning about each that is damaged. Empty where
/// there is none; where all are damaged, an Error.
[[nodiscard]] std::string newest_sound_checkpoint(Communicator& world, const std::string& run_folder);

}  // namespace moesaic
