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

/// A rank's words in the window. Reasons lie behind each other's turn, since ranks may be some meetings apart
/// in what they have read.
struct alignas(64) SharedMeeting::Place {
    u64 meetings = 0;
    std::array<std::array<char, 56>, 4> reasons{};
};

SharedMeeting::SharedMeeting(Communicator& group)
    : group_(group), window_(group.share_memory(sizeof(Place), {"meeting"})) {}

SharedMeeting::Place& SharedMeeting::place_of(int rank) const {
    return *reinterpret_cast<Place*>(window_->data() + rank * window_->segment_bytes());
}

u64 SharedMeeting::arrive(Label label) {
    ++meetings_;
    Place& mine = place_of(group_.rank());
    if constexpr (kHeavyAssertions) {
        auto& reason = mine.reasons[meetings_ % mine.reasons.size()];
        const std::string text = label.text();
        reason.fill('\0');
        text.copy(reason.data(), reason.size() - 1);
    }
    std::atomic_ref(mine.meetings).store(meetings_, std::memory_order_release);
    return meetings_;
}

void SharedMeeting::wait(u64 meeting, Label label) {
    if (all_have_come(meeting)) return compare_in_debug(meeting, label);
    const auto start = Clock::now();
    wait_for_the_late(meeting, label);
    group_.count_waiting(std::chrono::duration<double>(Clock::now() - start).count());
    compare_in_debug(meeting, label);
}

void SharedMeeting::wait_for_the_late(u64 meeting, const Label& label) {
    for (int spin = 0; window_->may_spin() && spin < kSpins; ++spin)
        if (all_have_come(meeting)) return;
    FlightRecorder::Call call = group_.flight("meeting", label);
    call.pairwise = true;  // not every rank waits in every meeting
    const FlightRecorder::Scope scope(group_.flights(), call);
    const auto start = Clock::now();
    while (!all_have_come(meeting)) {
        window_->poll();
        sched_yield();
        const auto waited = Clock::now() - start;
        if (std::chrono::duration<double>(waited).count() > group_.timeout_seconds()) {
            throw Error(group_.timeout_text("meeting", label, missing_ranks(meeting)));
        }
        // Where ranks share cores, one that waits long leaves them to those that compute.
        if (!window_->may_spin() && waited > kSoon) {
            std::this_thread::sleep_for(std::min<Clock::duration>(waited / 32, kLongestNap));
        }
    }
}

void SharedMeeting::compare_in_debug(u64 meeting, const Label& label) const {
    if constexpr (kHeavyAssertions) compare_reasons(meeting, label);
}

bool SharedMeeting::has_come(int rank, u64 meeting) const {
    return std::atomic_ref(place_of(rank).meetings).load(std::memory_order_acquire) >= meeting;
}

bool SharedMeeting::all_have_come(u64 meeting) const {
    for (int rank = 0; rank < group_.size(); ++rank) {
        if (!has_come(rank, meeting)) return false;
    }
    return true;
}

std::string SharedMeeting::missing_ranks(u64 meeting) const {
    std::string text;
    for (int rank = 0; rank < group_.size(); ++rank) {
        if (!has_come(rank, meeting)) text += fmt::format("{}{}", text.empty() ? "" : ", ", rank);
    }
    return fmt::format("{} of '{}'", text, group_.name());
}

void SharedMeeting::compare_reasons(u64 meeting, const Label& label) const {
    const auto reason_of = [&](int rank) {
        const auto& reasons = place_of(rank).reasons;
        return std::string(reasons[meeting % reasons.size()].data());
    };
    const std::string mine = reason_of(group_.rank());
    for (int rank = 0; rank < group_.size(); ++rank) {
        if (reason_of(rank) == mine) continue;
        throw Error(fmt::format(
            "{}: the ranks of communicator '{}' disagree: rank {} meets for '{}', rank {} "
            "for '{}'",
            Communicator::speaker(), group_.name(), group_.rank(), label.text(), rank, reason_of(rank)));
    }
}

}  // namespace moesaic
