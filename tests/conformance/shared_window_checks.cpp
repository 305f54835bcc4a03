// Windows and meetings of any communicator: what is written before a meeting is there after it.
#include "tests/conformance/shared_window_checks.h"

#include <cstring>

#include "comm/shared_window.h"

namespace moesaic::conformance {

namespace {

i64 mark(i64 round, i64 writer, i64 place) {
    return round * 1000003 + writer * 1009 + place + 1;
}

}  // namespace

void windows_hold_what_peers_write(Communicator& world, const Surroundings&, Failures& failures) {
    constexpr i64 kWords = 513;  // no multiple of a page or a cache line
    const i64 me = world.rank(), size = world.size();
    const auto window = world.share_memory(kWords * size * 8, {"check"});
    SharedMeeting meeting(world);
    failures.expect(window->segment_bytes() >= kWords * size * 8, "{} bytes", window->segment_bytes());
    failures.expect(world.shared_bytes() >= window->segment_bytes(), "{} bytes counted",
                    world.shared_bytes());
    const auto words_of = [&](i64 rank) {
        return reinterpret_cast<i64*>(window->data() + rank * window->segment_bytes());
    };
    for (i64 i = 0; i < kWords * size; ++i) failures.expect(words_of(me)[i] == 0, "word {} is not zero", i);
    meeting.meet({"zeros"});
    for (i64 round = 0; round < 40; ++round) {
        // Everyone writes its part of every segment, so that each segment has a part from each rank.
        for (i64 owner = 0; owner < size; ++owner) {
            for (i64 i = 0; i < kWords; ++i) words_of(owner)[me * kWords + i] = mark(round, me, i);
        }
        meeting.meet({"written", static_cast<int>(round)});
        i64 wrong = 0;
        for (i64 writer = 0; writer < size; ++writer) {
            for (i64 i = 0; i < kWords; ++i)
                wrong += words_of(me)[writer * kWords + i] != mark(round, writer, i);
        }
        failures.expect(wrong == 0, "round {}: {} wrong words", round, wrong);
        meeting.meet({"read", static_cast<int>(round)});
    }
}

void meetings_wait_for_the_last(Communicator& world, const Surroundings&, Failures& failures) {
    const auto window = world.share_memory(8, {"check"});
    SharedMeeting meeting(world);
    auto* const first = reinterpret_cast<i64*>(window->data());
    // Each rank in turn adds to one word: a lost or early meeting shows as a lost addition.
    constexpr i64 kRounds = 50;
    for (i64 round = 0; round < kRounds; ++round) {
        for (int turn = 0; turn < world.size(); ++turn) {
            if (turn == world.rank()) *first += turn + 1;
            meeting.meet({"turn"});
        }
    }
    const i64 want = kRounds * world.size() * (world.size() + 1) / 2;
    failures.expect(*first == want, "{} instead of {}", *first, want);
    meeting.meet({"end"});
}

void windows_of_a_part(Communicator& world, const Surroundings& at, Failures& failures) {
    const auto half = world.split(world.rank() % 2, world.rank(), "half");
    windows_hold_what_peers_write(*half, at, failures);
    meetings_wait_for_the_last(*half, at, failures);
    const auto nothing = world.share_memory(0, {"nothing"});
    failures.expect(nothing != nullptr, "no window of no bytes");
}

}  // namespace moesaic::conformance
