#include "comm/shared_window.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <thread>

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpins = 4000;                     // some microseconds
constexpr std::chrono::microseconds kSoon{500};  // waits below are answered at once
constexpr std::chrono::microseconds kLongestNap{100};

}  // namespace

/// A rank's words in the window. `reasons` alternate, since a rank that has left a meeting may write the next
/// reason while another still reads this one.
struct alignas(64) SharedMeeting::Place {
    u64 meetings = 0;
    std::array<std::array<char, 56>, 2> reasons{};
};

SharedMeeting::SharedMeeting(Communicator& group)
    : group_(group), window_(group.share_memory(sizeof(Place), {"meeting"})) {}

SharedMeeting::Place& SharedMeeting::place_of(int rank) const {
    return *reinterpret_cast<Place*>(window_->data() + rank * window_->segment_bytes());
}

void SharedMeeting::meet(Label label) {
    if (group_.size() == 1) return;
    ++meetings_;
    Place& mine = place_of(group_.rank());
    if constexpr (kHeavyAssertions) {
        auto& reason = mine.reasons[meetings_ % 2];
        const std::string text = label.text();
        reason.fill('\0');
        text.copy(reason.data(), reason.size() - 1);
    }
    std::atomic_ref(mine.meetings).store(meetings_, std::memory_order_release);
    wait(label);
    if constexpr (kHeavyAssertions) compare_reasons(label);
}

void SharedMeeting::wait(const Label& label) {
    for (int spin = 0; window_->may_spin() && spin < kSpins; ++spin) {
        if (all_have_come()) return;
    }
    const auto start = Clock::now();
    while (!all_have_come()) {
        window_->poll();
        sched_yield();
        const auto waited = Clock::now() - start;
        if (std::chrono::duration<double>(waited).count() > group_.timeout_seconds()) {
            throw Error(fmt::format("{}; still awaited: rank {}", group_.timeout_text("meeting", label),
                                    missing_ranks()));
        }
        // Where ranks share cores, one that waits long leaves them to those that compute.
        if (!window_->may_spin() && waited > kSoon) {
            std::this_thread::sleep_for(std::min<Clock::duration>(waited / 32, kLongestNap));
        }
    }
}

bool SharedMeeting::all_have_come() const {
    for (int rank = 0; rank < group_.size(); ++rank) {
        const u64 meetings = std::atomic_ref(place_of(rank).meetings).load(std::memory_order_acquire);
        if (meetings < meetings_) return false;
    }
    return true;
}

std::string SharedMeeting::missing_ranks() const {
    std::string text;
    for (int rank = 0; rank < group_.size(); ++rank) {
        if (std::atomic_ref(place_of(rank).meetings).load(std::memory_order_acquire) >= meetings_) continue;
        text += fmt::format("{}{}", text.empty() ? "" : ", ", rank);
    }
    return fmt::format("{} of '{}'", text, group_.name());
}

void SharedMeeting::compare_reasons(const Label& label) const {
    const auto reason_of = [&](int rank) {
        return std::string_view(place_of(rank).reasons[meetings_ % 2].data());
    };
    const std::string_view mine = reason_of(group_.rank());
    for (int rank = 0; rank < group_.size(); ++rank) {
        if (reason_of(rank) == mine) continue;
        throw Error(fmt::format(
            "{}: the ranks of communicator '{}' disagree: rank {} meets for '{}', rank {} "
            "for '{}'",
            Communicator::speaker(), group_.name(), group_.rank(), label.text(), rank, reason_of(rank)));
    }
}

}  // namespace moesaic
