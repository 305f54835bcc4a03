// What a step leaves in the records, taken or not.
#include <algorithm>
#include <numeric>

#include "launch/trainer.h"

namespace moesaic {

std::optional<SlowestRank> Trainer::slowest_rank() {
    OwnWork mine{};
    std::ranges::copy(runtime_.timeline.take_seconds(), mine.begin());
    const double seen = std::accumulate(mine.begin(), mine.end(), 0.0);
    const auto* const host = dynamic_cast<HostStream*>(runtime_.compute.get());
    if (host != nullptr && host->inline_execution())  // else the two go on at the same time
        mine.back() = std::max(0.0, since_record_.seconds - since_record_.collective_seconds - seen);
    for (double& seconds : mine) seconds /= static_cast<double>(since_record_.steps);
    Communicator& world = runtime_.mesh->world();
    if (world.size() == 1) return {};
    return find_slowest_rank(gather_work(world, *runtime_.exchange, mine));
}

void Trainer::leave_out(i64 step, const StepJudgement& judgement) {
    alarm_ = {};
    alarm_.step = step;
    alarm_.kind = judgement.kind;
    alarm_.message = judgement.what;
    if (judgement.finite) {
        alarm_.value = judgement.value;
        alarm_.threshold = judgement.threshold;
    } else {
        const NonfiniteOrigin origin = training_.find_nonfinite(step);
        alarm_.message += ": " + origin.text();
        alarm_.layer = origin.layer;
        alarm_.expert = origin.expert;
        if (origin.rank >= 0) alarm_.rank = origin.rank;
    }
    if (judgement.verdict == StepVerdict::skip) {
        alarm_.action = "skip";
        alarm_.message += "; this update is left out";
        sinks_.write(alarm_);
        return;
    }
    // An Error of a checkpoint that fails now would hide the reason.
    if (const auto outcome = checkpointer_.finish()) report(*outcome);
    if (judgement.verdict == StepVerdict::rollback) {
        alarm_.action = "rollback";
        alarm_.message += policy_.returns().count > 1
                              ? "; back to the newest checkpoint, and on without the batches in between"
                              : "; back to the newest checkpoint, to try the same again";
        goes_back_ = true;
        sinks_.flush();
        return;
    }
    alarm_.action = "stop";
    sinks_.write(alarm_);
    sinks_.flush();
    if (runtime_.mesh->world().rank() != 0) throw AbortedError("rank 0 failed");
    throw Error(fmt::format("{}: nothing was updated; the newest checkpoint is of step {}", alarm_.message,
                            complete_step_));
}

void Trainer::record_step(i64 step, const StepResult& result, bool taken) {
    Communicator& world = runtime_.mesh->world();
    const double steps = static_cast<double>(since_record_.steps);
    double slowest[3] = {
        since_record_.seconds / steps, since_record_.exchange_seconds / steps,
        static_cast<double>(runtime_.backend->pool().bytes_reserved() + runtime_.mesh->reserved_bytes() +
                            runtime_.mesh->shared_bytes())};
    i64 bytes = since_record_.exchange_bytes / since_record_.steps;
    const std::optional<SlowestRank> slow = slowest_rank();
    since_record_ = {};
    world.all_reduce(*runtime_.exchange, view_of(slowest, {3}), ReduceOp::max, {"times of the step"});
    world.all_reduce(*runtime_.exchange, view_of(&bytes, {1}), ReduceOp::sum, {"bytes of the step"});
    runtime_.exchange->synchronize();
    const double seconds = slowest[0];
    if (world.rank() != 0) return;

    StepRecord record;
    record.step = step;
    record.tokens = position_.tokens;
    record.loss = result.loss;
    record.loss_aux = result.loss_aux;
    record.loss_z = result.loss_z;
    record.grad_norm = result.grad_norm;
    record.lr = training_.learning_rate_of(step);
    const auto tokens = static_cast<double>(config_.train.batch_sequences * run_.spec.seq_len);
    record.tokens_per_s = tokens / seconds;
    record.step_ms = slowest[0] * 1e3;
    record.exchange_ms = slowest[1] * 1e3;
    record.exchange_bytes = bytes;
    record.flops_utilization = model_flops_per_token(run_.spec) * tokens / seconds / peak_flops_;
    if (run_.spec.balance.importance > 0) record.loss_importance = result.loss_importance;
    if (run_.spec.balance.load > 0) record.loss_load = result.loss_load;
    record.dropped_fraction = watch_.dropped_fraction();
    record.memory_bytes = static_cast<i64>(slowest[2]);
    record.load_max_over_mean = watch_.worst_max_over_mean();
    if (runtime_.mesh->expert_parallel() > 1)
        record.rank_load_max_over_mean = std::ranges::max(result.rank_max_over_mean);
    if (slow) {
        record.slowest_rank = slow->rank;
        record.slowest_phase = slow->phase;
        record.slowest_excess_ms = 1e3 * slow->excess_seconds;
    }
    if (generalization_.scales_of_step(step)) record.bounds = generalization_.prequential_bounds(step);
    sinks_.write(record);
    if (!taken) return;
    for (const ExpertsRecord& layer : watch_.layers()) sinks_.write(layer);
    sinks_.write(watch_.health(false));
}

}  // namespace moesaic
