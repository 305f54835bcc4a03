#include "comm/flight_recorder.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

u64 mixed(u64 hash, u64 value) {
    constexpr u64 kPrime = 1099511628211u;  // FNV-1a's
    return (hash ^ value) * kPrime;
}

}  // namespace

int FlightRecorder::join(std::string name, std::vector<int> world_ranks) {
    const std::scoped_lock lock(mutex_);
    groups_.push_back({{std::move(name), std::move(world_ranks)}, 0});
    return static_cast<int>(groups_.size()) - 1;
}

double FlightRecorder::now() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

i64 FlightRecorder::begin(const Call& call) {
    const std::scoped_lock lock(mutex_);
    MOESAIC_ASSERT(call.group < std::ssize(groups_), "group {}", call.group);
    Entry& entry = ring_[static_cast<std::size_t>(recorded_) % ring_.size()];
    entry = {.call = call, .step = run_context().step, .began = now()};
    if (!call.pairwise) {
        Group& group = groups_[static_cast<std::size_t>(call.group)];
        entry.sequence = group.known.entered++;
        for (const u64 part :
             {hash_name(call.verb), hash_name(call.operation), static_cast<u64>(call.layer), call.shape})
            group.history = mixed(group.history, part);
        entry.history = group.history;
    }
    return recorded_++;
}

void FlightRecorder::end(i64 number) {
    const std::scoped_lock lock(mutex_);
    if (recorded_ - number > std::ssize(ring_)) return;  // long written over
    ring_[static_cast<std::size_t>(number) % ring_.size()].ended = now();
}

void FlightRecorder::remember(std::size_t collectives) {
    const std::scoped_lock lock(mutex_);
    if (collectives <= ring_.size()) return;
    std::vector<Entry> larger(collectives);
    for (i64 number = std::max<i64>(0, recorded_ - std::ssize(ring_)); number < recorded_; ++number)
        larger[static_cast<std::size_t>(number) % collectives] =
            ring_[static_cast<std::size_t>(number) % ring_.size()];
    ring_ = std::move(larger);
}

double FlightRecorder::start() const {
    return std::chrono::duration<double>(start_.time_since_epoch()).count();
}

FlightLog FlightRecorder::log() const {
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    const std::scoped_lock lock(mutex_);
    FlightLog log;
    log.rank = run_context().rank;
    log.world_size = run_context().world_size;
    log.written = now();
    log.host = host.data();
    for (const Group& group : groups_) log.groups.push_back(group.known);
    for (i64 number = std::max<i64>(0, recorded_ - std::ssize(ring_)); number < recorded_; ++number) {
        const Entry& entry = ring_[static_cast<std::size_t>(number) % ring_.size()];
        log.records.push_back({.group = static_cast<std::size_t>(entry.call.group),
                               .sequence = entry.sequence,
                               .history = entry.history,
                               .verb = std::string(entry.call.verb),
                               .operation = std::string(entry.call.operation),
                               .layer = entry.call.layer,
                               .step = entry.step,
                               .rows = entry.call.rows,
                               .row_bytes = entry.call.row_bytes,
                               .shape = entry.call.shape,
                               .began = entry.began,
                               .ended = entry.ended});
    }
    return log;
}

FlightRecorder::Scope::Scope(FlightRecorder& recorder, const Call& call)
    : recorder_(recorder),
      number_(call.group < 0 ? -1 : recorder.begin(call)),
      exceptions_(std::uncaught_exceptions()) {}

FlightRecorder::Scope::~Scope() {
    if (number_ >= 0 && std::uncaught_exceptions() == exceptions_) recorder_.end(number_);
}

}  // namespace moesaic
