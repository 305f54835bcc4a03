#include "launch/evaluation_shards.h"

#include <algorithm>

namespace moesaic {

EvaluationShards evaluation_shards(const RunSetup& run) {
    const auto seed = static_cast<u64>(run.config.run.seed);
    const i64 batch = run.config.train.batch_sequences;
    EvaluationShards shards;
    shards.heldout = heldout_windows(run);
    shards.seen = probe_windows(run);
    shards.seen_at_step = (std::ssize(shards.seen) + batch - 1) / batch;
    const i64 end = run.dataset->first_epoch_sequences(seed);
    const i64 count = std::clamp<i64>(end - std::ssize(shards.seen), 0, std::ssize(shards.seen));
    shards.unseen_after = end - count;
    for (i64 number = shards.unseen_after; number < end; ++number)
        shards.unseen.push_back(run.dataset->training_sequence(seed, number));
    return shards;
}

}  // namespace moesaic
