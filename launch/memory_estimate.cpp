#include "launch/memory_estimate.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "launch/checkpoint_shard.h"
#include "launch/evaluation.h"
#include "launch/training_step.h"

namespace moesaic {

namespace {

constexpr int kMostRanksTried = 16;

/// A shorter batch with micro-batches of the same sizes: memory does not grow with their number.
Config shortened(Config config, int world) {
    if (config.model.kind == "momlp") return config;  // computes its batch at once
    const i64 round = world * config.train.micro_sequences;
    i64& batch = config.train.batch_sequences;
    if (batch > 3 * round) batch = 2 * round + batch % round;
    return config;
}

/// What Trainer does, once each.
void rehearse(RankRuntime& runtime, const Config& config) {
    TrainingStep training(runtime, config, [](i64, i64, i64, WindowBuffer) {});
    const WindowSource no_windows = [](i64, i64, WindowBuffer) {};
    const i64 sequences = 2 * runtime.mesh->world().size() * config.train.micro_sequences;
    ShardOptions shard;
    shard.sequences = sequences;
    shard.micro_sequences = config.train.micro_sequences;
    shard.document_mask = config.task.data.document_mask;
    if (runtime.model.spec().loss == LossKind::squared_error) shard.measure = SampleError::distance;
    (void)evaluate_shard(runtime, no_windows, shard);
    StepContext context = runtime.context(Phase::train, 0);
    runtime.optimizer->visit_state(context, [](const Parameter&, const ParameterState&) {});
    for (const i64 step : {1, 2}) {
        (void)training.forward_backward(step);
        training.update(step, 1.0);
    }
}

MemoryEstimate estimate_rank(const RunSetup& run, const Config& config, int rank, int world,
                             int expert_parallel, int ranks_per_node, AssumedRouting routing) {
    const int slices = static_cast<int>(config.parallel.expert_tensor), in_group = expert_parallel * slices;
    AccountingCommunicator group(rank, world, {in_group, world / in_group, slices, ranks_per_node, routing});
    RuntimeOptions options;
    options.expert_parallel = expert_parallel;
    options.stream_mode = StreamMode::accounting;
    RankRuntime runtime(config, run.spec, group, options);
    rehearse(runtime, config);
    const MemoryPool& pool = runtime.backend->pool();
    MemoryEstimate memory;
    memory.by_use = pool.peak_by_use();
    memory.kept = pool.bytes_reserved() - pool.peak_bytes_in_use();
    memory.reductions = runtime.mesh->reserved_bytes();
    memory.shared = runtime.mesh->shared_bytes();
    memory.checkpoint = checkpoint_copy_bytes(runtime, config.train.async_checkpoints);
    return memory;
}

}  // namespace

i64 MemoryEstimate::pool_bytes() const {
    return std::accumulate(by_use.begin(), by_use.end(), kept + reductions + shared);
}

MemoryEstimate estimate_memory(const RunSetup& run, int world, int expert_parallel, int ranks_per_node,
                               AssumedRouting routing) {
    const Config config = shortened(run.config, world);
    const int each = static_cast<int>(config.parallel.ranks_per_node.value_or(ranks_per_node));
    MemoryEstimate largest;
    for (int rank = 0; rank < std::min(world, kMostRanksTried); ++rank) {
        const MemoryEstimate one = estimate_rank(run, config, rank, world, expert_parallel, each, routing);
        if (one.process_bytes() > largest.process_bytes()) largest = one;
    }
    return largest;
}

std::string_view name_of(MemoryUse use) {
    switch (use) {
        case MemoryUse::activations:
            return "activations and their gradients";
        case MemoryUse::weights:
            return "weights";
        case MemoryUse::gradients:
            return "gradients of a micro-batch";
        case MemoryUse::gradient_sums:
            return "sums of gradients (f64)";
        case MemoryUse::masters:
            return "master weights (f32)";
        case MemoryUse::moments:
            return "moments";
        case MemoryUse::exchange:
            return "rows on their way between ranks";
        case MemoryUse::widened:
            return "operands in the form that products compute with";
        case MemoryUse::packed:
            return "weights packed for products";
        case MemoryUse::count:
            break;
    }
    return "";
}

i64 resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    i64 total = 0, resident = 0;
    statm >> total >> resident;
    return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace moesaic
