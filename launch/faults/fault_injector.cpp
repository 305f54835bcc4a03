#include "launch/faults/fault_injector.h"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <thread>

#include "comm/row_checks.h"
#include "runtime/base/log.h"
#include "runtime/bfloat16.h"
#include "runtime/checkpoint/manifest.h"

namespace moesaic {

namespace {

/// Said by the rank that it happens to; kept out of log files, where it could be taken for the run's own.
template <class... Args>
void announce(fmt::format_string<Args...> format, Args&&... args) {
    log_message(LogLevel::warn, fmt::format("fault: {}", fmt::format(format, std::forward<Args>(args)...)));
}

void sleep_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// The first element becomes NaN.
void put_nan(StepContext& context, TensorView tensor) {
    const TensorView first = tensor.flat(0, 1);
    const double as_double = std::numeric_limits<double>::quiet_NaN();
    const float as_float = std::numeric_limits<float>::quiet_NaN();
    if (first.dtype == DType::f64) {
        context.backend.copy(context.compute, view_of(&as_double, {1}), first);
    } else if (first.dtype == DType::f32) {
        context.backend.copy(context.compute, view_of(&as_float, {1}), first);
    } else {
        context.backend.convert(context.compute, view_of(&as_float, {1}), first);
    }
    context.compute.synchronize();
}

}  // namespace

Fault* FaultInjector::take(FaultType type, i64 step, bool any_rank) {
    for (std::size_t i = 0; i < faults_.size(); ++i) {
        Fault& fault = faults_[i];
        if (spent_[i] || fault.type != type || fault.step.value_or(step) != step) continue;
        if (!any_rank && fault.rank != rank_) continue;
        spent_[i] = fault.step.has_value();
        return &fault;
    }
    return nullptr;
}

void FaultInjector::before_step(RankRuntime& runtime, i64 step) {
    for (const Fault& fault : faults_) {
        if (fault.type == FaultType::kill && fault.where != "checkpoint" && fault.rank == rank_ &&
            fault.step == step) {
            announce("rank {} dies before step {}", rank_, step);
            std::raise(SIGKILL);
        }
    }
    if (take(FaultType::hang, step) != nullptr) {
        announce("rank {} stops answering before step {}", rank_, step);
        for (;;) sleep_for(3600);
    }
    if (const Fault* const late = take(FaultType::late, step)) {
        announce("rank {} begins step {} {:g} s late", rank_, step, late->seconds);
        sleep_for(late->seconds);
    }
    if (take(FaultType::wrong_order, step) != nullptr) enter_alone(runtime);
    row_checks().tamper = {};
    if (const Fault* const flip = take(FaultType::flip, step)) flip_bit_of_rows(flip->bit);
    for (std::size_t i = 0; i < faults_.size(); ++i) {
        const Fault& fault = faults_[i];
        if (fault.type != FaultType::nan || fault.where != "weight" || fault.step != step || spent_[i])
            continue;
        spent_[i] = true;
        StepContext context = runtime.context(Phase::train, step);
        spoil(context, runtime.store, fault);
        runtime.store.pack(*runtime.compute);
    }
}

void FaultInjector::enter_alone(RankRuntime& runtime) {
    announce("rank {} enters a barrier that no other rank enters", rank_);
    runtime.mesh->world().barrier({"out of order (injected)"});
}

void FaultInjector::flip_bit_of_rows(i64 bit) {
    row_checks().tamper = [rank = rank_, bit, done = false](const Label& label, std::byte* rows,
                                                            i64 bytes) mutable {
        if (done || !label.operation.starts_with(kDispatchPhase)) return;
        done = true;
        announce("bit {} of rows that rank {} was sent in '{}' flips", bit, rank, label.text());
        rows[bit / 8 % bytes] ^= std::byte{1} << static_cast<int>(bit % 8);
    };
}

int FaultInjector::idle_rank(i64 step) {
    const Fault* const fault = take(FaultType::zero_tokens, step, true);
    if (fault == nullptr) return -1;
    if (fault->rank == rank_) announce("rank {} gets no tokens in step {}", rank_, step);
    return static_cast<int>(fault->rank);
}

void FaultInjector::gradients_ready(StepContext& context, ParameterStore& store, int layer) {
    for (std::size_t i = 0; i < faults_.size(); ++i) {
        const Fault& fault = faults_[i];
        if (fault.type != FaultType::nan || fault.where == "weight" || spent_[i]) continue;
        if (fault.step != context.step || fault.layer != layer) continue;
        spent_[i] = true;
        spoil(context, store, fault);
    }
}

void FaultInjector::spoil(StepContext& context, ParameterStore& store, const Fault& fault) {
    if (context.mesh.replicas().rank() > 0) return;  // one of the ranks that hold it is enough
    const bool weight = fault.where == "weight";
    for (std::size_t i = 0; i < std::as_const(store).parameters().size(); ++i) {
        const Parameter& parameter = std::as_const(store).parameters()[i];
        if (parameter.layer != fault.layer || parameter.expert != fault.expert) continue;
        const TensorView arena = weight ? store.values(parameter.placement) : store.sums(parameter.placement);
        put_nan(context, arena.flat(store.offset_of(i), 1));
        announce("a number of {} of {} is NaN in step {}", weight ? "the weights" : "the gradient",
                 parameter.name, context.step);
        return;
    }
}

DiskFault FaultInjector::disk(i64 step) const {
    DiskFault disk;
    for (const Fault& fault : faults_) {
        if (fault.rank != rank_ || fault.step.value_or(step) != step) continue;
        if (fault.type == FaultType::full_disk) disk.full = true;
        if (fault.type == FaultType::slow_disk) disk.seconds += fault.seconds;
    }
    return disk;
}

void FaultInjector::shard_written(i64 step) {
    for (const Fault& fault : faults_) {
        if (fault.type != FaultType::kill || fault.where != "checkpoint" || fault.rank != rank_) continue;
        if (fault.step != step) continue;
        announce("rank {} dies in the checkpoint of step {}", rank_, step);
        std::raise(SIGKILL);
    }
}

void FaultInjector::checkpoint_complete(i64 step, const std::string& folder) {
    namespace fs = std::filesystem;
    const auto shard_of = [&](const Fault& fault) {
        return folder + "/" + read_manifest(folder).shards[static_cast<std::size_t>(fault.shard)].file;
    };
    if (const Fault* const cut = take(FaultType::truncate_checkpoint, step, true)) {
        announce("{} loses its second half", shard_of(*cut));
        fs::resize_file(shard_of(*cut), fs::file_size(shard_of(*cut)) / 2);
    }
    if (const Fault* const flip = take(FaultType::bitflip_checkpoint, step, true)) {
        announce("a bit of {} flips", shard_of(*flip));
        std::fstream file(shard_of(*flip), std::ios::in | std::ios::out | std::ios::binary);
        const auto middle = static_cast<std::streamoff>(fs::file_size(shard_of(*flip)) / 2);
        const auto at = middle + static_cast<std::streamoff>(flip->bit / 8);
        file.seekg(at);
        const int byte = file.get();
        file.seekp(at);
        file.put(static_cast<char>(byte ^ (1 << (flip->bit % 8))));
    }
}

}  // namespace moesaic
