#include "comm/thread_communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "comm/host_communicator.h"
#include "comm/process_window.h"
#include "comm/thread_meeting.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

using detail::ThreadGroup;
using detail::ThreadSlot;
using detail::ThreadWorldState;

void copy_rows(const std::byte* from, std::byte* to, i64 bytes) {
    if (bytes && from != to) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

/// Last arrival of a split: ranks of one color form a group, ordered by (key, rank).
void form_groups(ThreadWorldState& world, ThreadGroup& group) {
    std::map<int, std::vector<std::pair<int, std::size_t>>> members;  // color -> (key, rank)
    for (std::size_t rank = 0; rank < group.slots.size(); ++rank) {
        members[group.slots[rank].color].emplace_back(group.slots[rank].key, rank);
    }
    for (auto& [color, ranks] : members) {
        std::ranges::sort(ranks);
        std::vector<int> world_ranks;
        for (const auto& [key, rank] : ranks) world_ranks.push_back(group.world_ranks[rank]);
        const auto formed = std::make_shared<ThreadGroup>(std::move(world_ranks));
        world.groups.push_back(formed);
        for (std::size_t place = 0; place < ranks.size(); ++place) {
            ThreadSlot& slot = group.slots[ranks[place].second];
            slot.new_group = formed;
            slot.new_rank = static_cast<int>(place);
        }
    }
}

class ThreadCommunicator final : public HostCommunicator {
  public:
    ThreadCommunicator(std::shared_ptr<ThreadWorldState> world, std::shared_ptr<ThreadGroup> group, int rank,
                       std::string name, std::shared_ptr<CommunicatorSettings> settings)
        : HostCommunicator(rank, static_cast<int>(group->slots.size()), std::move(name), std::move(settings)),
          world_(std::move(world)),
          group_(std::move(group)) {
        record_flights(group_->world_ranks);
    }

    void barrier(Label label) override {
        const FlightRecorder::Scope scope(flights(), flight("barrier", label));
        meet({.verb = "barrier", .label = label}, [this](ThreadGroup& group) { compare(group); });
    }

    std::unique_ptr<Communicator> split(int color, int key, std::string name) override {
        MOESAIC_ASSERT(color >= 0, "color {}", color);
        const FlightRecorder::Scope scope(flights(), flight("split", {"split"}));
        meet({.verb = "split", .label = {"split"}, .color = color, .key = key}, [this](ThreadGroup& group) {
            compare(group);
            if (group.disagreement.empty()) form_groups(*world_, group);
        });
        ThreadSlot& slot = own_slot();  // until the second meeting only this rank touches it
        auto formed = std::exchange(slot.new_group, nullptr);
        const int new_rank = slot.new_rank;
        detail::meet_after_copying(*world_, *group_, rank());
        return std::make_unique<ThreadCommunicator>(world_, std::move(formed), new_rank, std::move(name),
                                                    settings());
    }

    void abort(std::string_view why) noexcept override {
        const std::scoped_lock lock(world_->mutex);
        world_->fail(fmt::format("rank {} failed: {}", run_context().rank, why));
    }

  protected:
    std::unique_ptr<SharedWindow> make_window(i64 bytes, Label label) override;
    void exchange_now(const Exchange& exchange) override;
    void gather_now(const Gather& gather) override;
    void broadcast_now(const Message& message) override;
    void send_now(const Message& message) override;
    void recv_now(const Message& message) override;

  private:
    void meet(ThreadSlot slot, const std::function<void(ThreadGroup&)>& when_complete) {
        {
            const std::scoped_lock lock(world_->mutex);
            own_slot() = std::move(slot);
        }
        detail::meet(*world_, *group_, *this, when_complete);
    }
    /// First meeting, with the agreement checked.
    void meet(ThreadSlot slot) {
        meet(std::move(slot), [this](ThreadGroup& group) { compare(group); });
    }
    void compare(ThreadGroup& group) const { detail::compare_slots(group, name()); }
    ThreadSlot& own_slot() { return group_->slots[static_cast<std::size_t>(rank())]; }
    const ThreadSlot& slot_of(int peer) const { return group_->slots[static_cast<std::size_t>(peer)]; }

    std::shared_ptr<ThreadWorldState> world_;
    std::shared_ptr<ThreadGroup> group_;
};

std::unique_ptr<SharedWindow> ThreadCommunicator::make_window(i64 bytes, Label label) {
    const i64 segment = SharedWindow::rounded(bytes);
    meet({.verb = "share_memory", .label = label, .row_bytes = segment}, [&](ThreadGroup& group) {
        compare(group);
        if (group.disagreement.empty()) group.shared = ProcessWindow::allocate(segment * size());
    });
    auto memory = group_->shared;  // until the second meeting nobody changes it
    std::memset(memory.get() + rank() * segment, 0, static_cast<std::size_t>(segment));
    detail::meet_after_copying(*world_, *group_, rank());
    if (rank() == 0) group_->shared.reset();
    ProcessWindow::Waiting waiting;
    waiting.may_spin = world_->spin;
    waiting.poll = [world = world_] {
        if (!world->failed) return;
        const std::scoped_lock lock(world->mutex);
        throw AbortedError(world->failure);
    };
    return std::make_unique<ProcessWindow>(std::move(memory), segment, std::move(waiting));
}

void ThreadCommunicator::exchange_now(const Exchange& exchange) {
    meet({.verb = "all_to_all_rows",
          .label = exchange.label,
          .row_bytes = exchange.row_bytes,
          .pairwise = true,
          .send = exchange.send,
          .send_rows = exchange.send_rows,
          .recv_rows = exchange.recv_rows});
    std::byte* to = exchange.recv;
    for (int peer = 0; peer < size(); ++peer) {
        const ThreadSlot& source = slot_of(peer);
        const i64 first =
            std::accumulate(source.send_rows.begin(), source.send_rows.begin() + rank(), i64{0});
        const i64 bytes = exchange.recv_rows[static_cast<std::size_t>(peer)] * exchange.row_bytes;
        copy_rows(source.send + first * exchange.row_bytes, to, bytes);
        to += bytes;
    }
    detail::meet_after_copying(*world_, *group_, rank());
}

void ThreadCommunicator::gather_now(const Gather& gather) {
    meet({.verb = "all_gather_rows",
          .label = gather.label,
          .row_bytes = gather.row_bytes,
          .send = gather.mine,
          .recv_rows = gather.rows});
    std::byte* to = gather.all;
    for (int peer = 0; peer < size(); ++peer) {
        const i64 bytes = gather.rows[static_cast<std::size_t>(peer)] * gather.row_bytes;
        copy_rows(slot_of(peer).send, to, bytes);
        to += bytes;
    }
    detail::meet_after_copying(*world_, *group_, rank());
}

void ThreadCommunicator::broadcast_now(const Message& message) {
    meet({.verb = "broadcast",
          .label = message.label,
          .row_bytes = message.bytes,
          .root = message.peer,
          .send = message.data});
    copy_rows(slot_of(message.peer).send, message.data, message.bytes);
    detail::meet_after_copying(*world_, *group_, rank());
}

void ThreadCommunicator::send_now(const Message& message) {
    std::vector<std::byte> copy(message.data, message.data + message.bytes);
    const std::scoped_lock lock(world_->mutex);
    if (world_->failed) throw AbortedError(world_->failure);
    group_->mail[{rank(), message.peer}].emplace_back(message.label.text(), std::move(copy));
    group_->changed.notify_all();
}

void ThreadCommunicator::recv_now(const Message& message) {
    std::unique_lock lock(world_->mutex);
    auto& box = group_->mail[{message.peer, rank()}];
    const auto answered = group_->changed.wait_for(lock, std::chrono::duration<double>(timeout_seconds()),
                                                   [&] { return !box.empty() || world_->failed; });
    if (!answered) {
        const std::string text =
            timeout_text("recv", message.label,
                         std::to_string(group_->world_ranks[static_cast<std::size_t>(message.peer)]));
        world_->fail(text);
        throw Error(text);
    }
    if (box.empty()) throw AbortedError(world_->failure);
    const auto [label, bytes] = std::move(box.front());
    box.pop_front();
    lock.unlock();
    if (label != message.label.text() || std::ssize(bytes) != message.bytes) {
        throw Error(fmt::format("{}: {} expects {} bytes, but rank {} sent {} bytes of '{}'", speaker(),
                                describe("recv", message.label), message.bytes,
                                group_->world_ranks[static_cast<std::size_t>(message.peer)], bytes.size(),
                                label));
    }
    copy_rows(bytes.data(), message.data, message.bytes);
}

/// The first failure of several ranks; one that only follows from another counts when there is no other.
class FirstFailure {
  public:
    void add(std::exception_ptr failure, bool is_consequence) {
        const std::scoped_lock lock(mutex_);
        std::exception_ptr& place = is_consequence ? consequence_ : cause_;
        if (!place) place = std::move(failure);
    }
    void rethrow() const {
        if (cause_) std::rethrow_exception(cause_);
        if (consequence_) std::rethrow_exception(consequence_);
    }

  private:
    std::mutex mutex_;
    std::exception_ptr cause_, consequence_;
};

void run_one_rank(Communicator& world, const std::function<void(Communicator&)>& body,
                  FirstFailure& failures) {
    run_context() = {world.rank(), world.size(), -1};
    try {
        body(world);
    } catch (const AbortedError&) {
        failures.add(std::current_exception(), true);
    } catch (const std::exception& failure) {
        failures.add(std::current_exception(), false);
        world.abort(failure.what());
    } catch (...) {
        failures.add(std::current_exception(), false);
        world.abort("an exception of unknown type");
    }
}

}  // namespace

ThreadWorld::ThreadWorld(int size, double timeout_seconds)
    : state_(std::make_shared<ThreadWorldState>()), timeout_seconds_(timeout_seconds) {
    MOESAIC_ASSERT(size > 0, "a world of {} ranks", size);
    std::vector<int> ranks(static_cast<std::size_t>(size));
    std::iota(ranks.begin(), ranks.end(), 0);
    state_->groups.push_back(std::make_shared<ThreadGroup>(std::move(ranks)));
    state_->spin = static_cast<unsigned>(size) <= std::thread::hardware_concurrency();
}

std::unique_ptr<Communicator> ThreadWorld::communicator(int rank) {
    auto settings = std::make_shared<CommunicatorSettings>();
    settings->timeout_seconds = timeout_seconds_;
    std::shared_ptr<ThreadGroup> group;
    {
        const std::scoped_lock lock(state_->mutex);
        group = state_->groups.front();
    }
    return std::make_unique<ThreadCommunicator>(state_, std::move(group), rank, "world", std::move(settings));
}

void run_ranks(int world, const std::function<void(Communicator&)>& body, double timeout_seconds) {
    ThreadWorld meeting(world, timeout_seconds);
    FirstFailure failures;
    std::vector<std::thread> threads;
    threads.reserve(static_cast<std::size_t>(world));
    for (int rank = 0; rank < world; ++rank) {
        threads.emplace_back([&, rank] {
            const auto communicator = meeting.communicator(rank);
            run_one_rank(*communicator, body, failures);
        });
    }
    for (std::thread& thread : threads) thread.join();
    failures.rethrow();
}

}  // namespace moesaic
