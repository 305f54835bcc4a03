#include "comm/thread_meeting.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace moesaic::detail {

namespace {

constexpr int kSpins = 2000;  // some microseconds

/// Needs the lock; whether this rank completed the round.
bool arrive(ThreadGroup& group, int rank, const std::function<void(ThreadGroup&)>& when_complete) {
    group.here[static_cast<std::size_t>(rank)] = 1;
    if (++group.arrived < group.slots.size()) return false;
    if (when_complete) when_complete(group);
    group.arrived = 0;
    std::fill(group.here.begin(), group.here.end(), char{0});
    group.round.fetch_add(1, std::memory_order_release);
    group.changed.notify_all();
    return true;
}

/// Needs no lock.
void spin_until(const ThreadWorldState& world, const ThreadGroup& group, u64 round) {
    for (int spin = 0; spin < kSpins; ++spin) {
        if (group.round.load(std::memory_order_acquire) != round || world.failed.load()) return;
    }
}

std::string missing_ranks(const ThreadGroup& group) {
    std::string text;
    for (std::size_t rank = 0; rank < group.here.size(); ++rank) {
        if (!group.here[rank]) text += fmt::format("{}{}", text.empty() ? "" : ", ", group.world_ranks[rank]);
    }
    return text;
}

std::string described(const ThreadGroup& group, std::size_t rank) {
    const ThreadSlot& slot = group.slots[rank];
    std::string text =
        fmt::format("rank {} calls {} '{}'", group.world_ranks[rank], slot.verb, slot.label.text());
    if (slot.row_bytes) text += fmt::format(" with {} bytes per row", slot.row_bytes);
    return text;
}

bool same_call(const ThreadSlot& a, const ThreadSlot& b) {
    return a.verb == b.verb && a.label.operation == b.label.operation && a.label.layer == b.label.layer &&
           a.root == b.root && (a.row_bytes == b.row_bytes || a.row_bytes == 0 || b.row_bytes == 0);
}

}  // namespace

void ThreadWorldState::fail(std::string_view why) {
    if (failed) return;
    failure = why;
    failed = true;
    for (const auto& group : groups) group->changed.notify_all();
}

void meet(ThreadWorldState& world, ThreadGroup& group, const Communicator& caller,
          const std::function<void(ThreadGroup&)>& when_complete) {
    std::unique_lock lock(world.mutex);
    if (world.failed) throw AbortedError(world.failure);
    const u64 round = group.round;
    if (group.disagreement.empty() && !arrive(group, caller.rank(), when_complete)) {
        if (world.spin) {
            lock.unlock();
            spin_until(world, group, round);
            lock.lock();
        }
        const bool answered =
            group.changed.wait_for(lock, std::chrono::duration<double>(caller.timeout_seconds()),
                                   [&] { return group.round != round || world.failed.load(); });
        // A completed round goes on even in a failed world: peers already read this rank's buffers.
        if (group.round == round) {
            if (answered) throw AbortedError(world.failure);
            const ThreadSlot& slot = group.slots[static_cast<std::size_t>(caller.rank())];
            const std::string text = caller.timeout_text(slot.verb, slot.label, missing_ranks(group));
            world.fail(text);
            throw Error(text);
        }
    }
    if (!group.disagreement.empty()) {
        throw Error(fmt::format("{}: {}", Communicator::speaker(), group.disagreement));
    }
}

void meet_after_copying(ThreadWorldState& world, ThreadGroup& group, int rank) {
    std::unique_lock lock(world.mutex);
    const u64 round = group.round;
    if (arrive(group, rank, {})) return;
    if (world.spin) {
        lock.unlock();
        spin_until(world, group, round);
        lock.lock();
    }
    group.changed.wait(lock, [&] { return group.round != round; });
}

void compare_slots(ThreadGroup& group, std::string_view communicator) {
    const std::size_t size = group.slots.size();
    for (std::size_t a = 0; a < size && group.disagreement.empty(); ++a) {
        const ThreadSlot& slot = group.slots[a];
        for (std::size_t b = 0; b < size; ++b) {
            const ThreadSlot& other = group.slots[b];
            if (!same_call(slot, other)) {
                group.disagreement = fmt::format("the ranks of communicator '{}' disagree: {}, {}",
                                                 communicator, described(group, a), described(group, b));
                return;
            }
            const bool fits = slot.pairwise ? slot.send_rows[b] == other.recv_rows[a]
                                            : std::ranges::equal(slot.recv_rows, other.recv_rows);
            if (fits) continue;
            group.disagreement =
                fmt::format("the ranks of communicator '{}' disagree on rows in {} '{}': ", communicator,
                            slot.verb, slot.label.text());
            group.disagreement += slot.pairwise ? fmt::format("rank {} sends {} to rank {}, which expects {}",
                                                              group.world_ranks[a], slot.send_rows[b],
                                                              group.world_ranks[b], other.recv_rows[a])
                                                : fmt::format("rank {} has other counts than rank {}",
                                                              group.world_ranks[a], group.world_ranks[b]);
            return;
        }
    }
}

}  // namespace moesaic::detail
