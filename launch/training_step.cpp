#include "launch/training_step.h"

#include <numeric>

#include "runtime/schedule.h"

namespace moesaic {

namespace {

/// A rank's part of what the world gathers once a step: per micro-step one balance pair, then its sequences' losses.
i64 record_size(const MicroBatches& batches) { return batches.micro_steps() * (2 + batches.size) + 1; }

}  // namespace

TrainingStep::TrainingStep(RankRuntime& runtime, const Config& config, const Dataset& dataset)
    : runtime_(runtime),
      config_(config),
      dataset_(dataset),
      micro_batches_{config.train.batch_sequences, config.train.micro_sequences, runtime.mesh->world().size()},
      windows_(static_cast<std::size_t>(config.train.micro_sequences * (config.task.data.seq_len + 1))),
      tokens_(runtime.backend->allocate({config.train.micro_sequences * config.task.data.seq_len}, DType::int32)),
      targets_(runtime.backend->allocate({config.train.micro_sequences * config.task.data.seq_len}, DType::int32)) {}

void TrainingStep::load_batch(i64 step, MicroBatches::Part part) {
    dataset_.training_batch(config_.run.seed, step, config_.train.batch_sequences, part.first, part.count, windows_.data());
    split_windows(windows_.data(), part.count, config_.task.data.seq_len, tokens_.as<i32>(), targets_.as<i32>());
}

Batch TrainingStep::device_batch(i64 sequences) const {
    const i64 seq_len = config_.task.data.seq_len;
    return {tokens_.slice_rows(0, sequences * seq_len), targets_.slice_rows(0, sequences * seq_len), sequences, seq_len};
}

void TrainingStep::count_experts(i64 step, GlobalBatch& global) {
    Tensor counts = runtime_.backend->allocate({static_cast<i64>(global.expert_counts.size())}, DType::int64);
    std::fill_n(counts.as<i64>(), counts.elements(), 0);
    StepContext context = runtime_.context(Phase::evaluate, step);
    const int rank = runtime_.mesh->world().rank();
    for (i64 i = 0; i < micro_batches_.micro_steps(); ++i) {
        const MicroBatches::Part part = micro_batches_.part(i, rank);
        load_batch(step, part);
        ModelSaved unused;
        const ForwardResult result = runtime_.model.forward(context, device_batch(part.count), unused);
        add_expert_counts(result, counts.as<i64>());
    }
    runtime_.mesh->world().all_reduce(*runtime_.exchange, counts, ReduceOp::sum, {"expert counts of the batch"});
    runtime_.exchange->synchronize();
    std::copy_n(counts.as<i64>(), counts.elements(), global.expert_counts.data());
}

StepResult TrainingStep::forward_backward(i64 step, bool stop_here) {
    const i64 seq_len = config_.task.data.seq_len;
    GlobalBatch global;
    global.tokens = global.targets = config_.train.batch_sequences * seq_len;
    if (config_.model.moe.balance.scope == BalanceScope::global) {
        global.expert_counts.assign(runtime_.model.expert_count_slots(), 0);
        count_experts(step, global);
    }
    runtime_.store.zero_gradients(*runtime_.compute);
    StepContext context = runtime_.context(Phase::train, step);
    const int rank = runtime_.mesh->world().rank();
    const i64 micro_steps = micro_batches_.micro_steps();
    std::vector<double> record(static_cast<std::size_t>(record_size(micro_batches_)), 0.0);
    Tensor counts = runtime_.backend->allocate({static_cast<i64>(runtime_.model.expert_count_slots())}, DType::int64);
    std::fill_n(counts.as<i64>(), counts.elements(), 0);
    for (i64 i = 0; i < micro_steps; ++i) {
        const MicroBatches::Part part = micro_batches_.part(i, rank);
        load_batch(step, part);
        ModelSaved saved;
        const ForwardResult result = runtime_.model.forward(context, device_batch(part.count), saved);
        runtime_.compute->synchronize();
        double* const slot = record.data() + i * (2 + micro_batches_.size);
        sum_by_sequence(result.token_loss.as<double>(), part.count, seq_len, slot + 2);
        add_expert_counts(result, counts.as<i64>());
        const BalanceTerms balance = runtime_.model.balance(saved, global);
        slot[0] = balance.aux;
        slot[1] = balance.z;
        const bool last = i + 1 == micro_steps;
        runtime_.model.backward(context, saved, global, [&](int segment) {
            if (last) runtime_.gradient_sync.segment_ready(context, segment);
        });
    }
    runtime_.gradient_sync.finish(context);
    record.back() = stop_here ? 1.0 : 0.0;
    StepResult result = gather_results(record, counts);
    result.targets = global.targets;
    result.loss = std::accumulate(result.sequence_loss.begin(), result.sequence_loss.end(), 0.0) /
                  static_cast<double>(global.targets);
    result.grad_norm = runtime_.gradient_sync.gradient_norm(context);
    return result;
}

StepResult TrainingStep::gather_results(std::vector<double>& local, TensorView counts) {
    const Communicator& world = runtime_.mesh->world();
    const i64 record = static_cast<i64>(local.size());
    std::vector<double> all(static_cast<std::size_t>(record * world.size()));
    runtime_.mesh->world().all_gather(*runtime_.exchange, view_of(local.data(), {record}),
                                      view_of(all.data(), {record * world.size()}), {"losses of the step"});
    runtime_.mesh->world().all_reduce(*runtime_.exchange, counts, ReduceOp::sum, {"expert loads"});
    runtime_.exchange->synchronize();

    StepResult result;
    result.sequence_loss.reserve(static_cast<std::size_t>(micro_batches_.sequences));
    // Micro-batch order, not rank order: the sums below are the same bits on every layout.
    for (i64 i = 0; i < micro_batches_.micro_steps(); ++i) {
        for (int rank = 0; rank < world.size(); ++rank) {
            const double* const slot = all.data() + rank * record + i * (2 + micro_batches_.size);
            const i64 count = micro_batches_.part(i, rank).count;
            if (count > 0) {
                result.loss_aux += slot[0];
                result.loss_z += slot[1];
            }
            result.sequence_loss.insert(result.sequence_loss.end(), slot + 2, slot + 2 + count);
        }
    }
    for (int rank = 0; rank < world.size(); ++rank) {
        if (all[static_cast<std::size_t>((rank + 1) * record - 1)] != 0.0) result.stop_requested = true;
    }
    result.expert_counts.assign(counts.as<i64>(), counts.as<i64>() + counts.elements());
    return result;
}

double TrainingStep::update(i64 step, double grad_norm) {
    const double lr = learning_rate(config_.optimizer, config_.train.steps, step);
    const std::optional<double> clip = config_.optimizer.clip;
    const double factor = clip ? std::min(1.0, *clip / (grad_norm + 1e-6)) : 1.0;
    StepContext context = runtime_.context(Phase::train, step);
    runtime_.optimizer.step(context, lr, factor, step);
    return lr;
}

}  // namespace moesaic
