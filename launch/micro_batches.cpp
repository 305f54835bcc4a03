#include "launch/micro_batches.h"

#include <fmt/format.h>

namespace moesaic {

MicroBatches micro_batches_of(const Config& config, ModelKind kind, i64 world) {
    const i64 batch = config.train.batch_sequences;
    if (kind == ModelKind::momlp) return {batch, batch / world, world};
    return {batch, config.train.micro_sequences, world};
}

bool adds_gradients_once(const Config& config, const ModelSpec& spec, i64 world) {
    if (config.train.determinism == "elastic" || spec.activation == ActivationKind::prelu) return false;
    return world == 1 && micro_batches_of(config, spec.kind, 1).micro_steps() == 1;
}

std::string advice_on_idle_ranks(const MicroBatches& batches) {
    const i64 turns = batches.micro_steps() * batches.world;
    if (4 * batches.count() > 3 * turns) return {};
    i64 size = std::min(batches.size, batches.sequences / batches.world);
    while (size > 1 && batches.sequences % (size * batches.world) != 0) --size;
    const std::string remedy =
        size > 0 && batches.sequences % batches.world == 0
            ? fmt::format("{} keeps all ranks at work", size)
            : fmt::format("train.batch_sequences in multiples of {} could keep all ranks at work",
                          batches.world);
    return fmt::format(
        "train.micro_sequences: {}: a batch of {} sequences is cut into {}, one for a rank at a time, and {} "
        "ranks have {} turns for them: in the others they wait; {}",
        batches.size, batches.sequences, batches.count(), batches.world, turns, remedy);
}

}  // namespace moesaic
