// Where the threads of one process meet: what every rank has laid on the table, and waiting for all of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"

namespace moesaic::detail {

struct ThreadGroup;

/// What one rank brings to a collective. Others read it between the two meetings of that collective.
struct ThreadSlot {
    std::string_view verb;
    Label label{};
    i64 row_bytes = 0;      ///< 0: fits anything
    int root = 0;           ///< of a broadcast
    bool pairwise = false;  ///< counts say what each pair exchanges, rather than the same on every rank
    const std::byte* send = nullptr;
    Counts send_rows{}, recv_rows{};
    int color = 0, key = 0;                    ///< of a split
    std::shared_ptr<ThreadGroup> new_group{};  ///< the split's result
    int new_rank = 0;
};

/// One communicator's meeting place. Everything but `round` is guarded by the world's mutex; slots may also
/// be read without it between the meetings of a collective, when nobody writes them.
struct ThreadGroup {
    explicit ThreadGroup(std::vector<int> ranks)
        : world_ranks(std::move(ranks)), slots(world_ranks.size()), here(world_ranks.size()) {}

    const std::vector<int> world_ranks;
    std::vector<ThreadSlot> slots;
    std::vector<char> here;  ///< who has arrived in this round
    std::size_t arrived = 0;
    std::atomic<u64> round{0};
    std::string disagreement;  ///< not empty: the group is unusable, and why
    std::condition_variable changed;
    std::shared_ptr<std::byte> shared;  ///< of the window that is being made
    std::map<std::pair<int, int>, std::deque<std::pair<std::string, std::vector<std::byte>>>> mail;
};

/// Shared by all groups of a world. One mutex: it is held for a few instructions only.
struct ThreadWorldState {
    std::mutex mutex;
    std::atomic<bool> failed{false};
    std::string failure;  ///< of the rank that failed first
    std::vector<std::shared_ptr<ThreadGroup>> groups;
    bool spin = false;  ///< every rank has a core of its own

    /// Needs the mutex. Wakes every waiting rank of the world.
    void fail(std::string_view why);
};

/// Waits until all ranks of the group have come. The last one runs `when_complete` under the mutex. Throws
/// AbortedError when the world has failed, Error on a time-out or when the ranks disagree; `caller` says on
/// whose behalf.
void meet(ThreadWorldState& world, ThreadGroup& group, const Communicator& caller,
          const std::function<void(ThreadGroup&)>& when_complete);

/// The same, but nothing interrupts it: peers may still be reading this rank's buffers, and none of them
/// waits for anything else.
void meet_after_copying(ThreadWorldState& world, ThreadGroup& group, int rank);

/// Sets `disagreement` when slots do not describe the same collective with counts that fit.
void compare_slots(ThreadGroup& group, std::string_view communicator);

}  // namespace moesaic::detail
