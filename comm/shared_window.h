// Memory that the ranks of one machine write into for each other, and how they wait for each other there.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"

namespace moesaic {

/// A segment of every rank of a group, one behind the other in rank order, which every rank of the group
/// reads and writes like its own memory. Made by Communicator::share_memory and gone before that
/// communicator.
///
/// Ordering: what a rank wrote before SharedMeeting::meet is seen by every rank that has left the same
/// meeting. Nothing else orders accesses. The words of a meeting are C++ atomics (release to arrive, acquire
/// to leave), which order ordinary loads and stores of processes as they do those of threads, since both see
/// the same coherent physical memory (MPI's unified model).
class SharedWindow {
  public:
    virtual ~SharedWindow() = default;
    SharedWindow(const SharedWindow&) = delete;
    SharedWindow& operator=(const SharedWindow&) = delete;

    /// Where rank 0's segment begins; zeros at first. Aligned to 64 bytes.
    [[nodiscard]] std::byte* data() const { return data_; }
    /// Of one rank: rank r's segment begins at data() + r * segment_bytes().
    [[nodiscard]] i64 segment_bytes() const { return segment_bytes_; }

    /// What a segment of `bytes` takes: a multiple of 64 bytes, so that the next one is aligned.
    [[nodiscard]] static constexpr i64 rounded(i64 bytes) { return (bytes + 63) / 64 * 64; }

    /// To be called again and again by a rank that waits for another one: lets messages of the same library
    /// go on, and throws AbortedError when another rank has failed.
    virtual void poll() = 0;
    /// Whether every rank has a core of its own, so that a waiting one may spin.
    [[nodiscard]] virtual bool may_spin() const = 0;

  protected:
    SharedWindow(std::byte* data, i64 segment_bytes) : data_(data), segment_bytes_(segment_bytes) {}

  private:
    std::byte* data_;
    i64 segment_bytes_;
};

/// Where the ranks of a group wait for each other without messages: every rank counts its meetings in a word
/// of its own, and has met when no other word is behind.
class SharedMeeting {
  public:
    /// Collective over `group`, at start-up. `group` has to outlive this.
    explicit SharedMeeting(Communicator& group);

    /// Collective over the group, on the host at once: returns when every rank has come as often as this one.
    /// Throws Error naming rank, step, label and who is missing after the group's time-out; AbortedError when
    /// another rank has failed. With heavy assertions ranks that meet for different reasons throw Error.
    void meet(Label label) { wait(arrive(label), label); }
    /// The two halves of a meeting: says that this rank has come, and returns the meeting's number; waits
    /// until every rank has come to that meeting, which may be long past. The group counts the time as
    /// waiting (Communicator::waiting_seconds).
    [[nodiscard]] u64 arrive(Label label);
    void wait(u64 meeting, Label label);

  private:
    struct Place;
    [[nodiscard]] Place& place_of(int rank) const;
    [[nodiscard]] bool has_come(int rank, u64 meeting) const;
    [[nodiscard]] bool all_have_come(u64 meeting) const;
    void wait_for_the_late(u64 meeting, const Label& label);
    [[nodiscard]] std::string missing_ranks(u64 meeting) const;
    void compare_reasons(u64 meeting, const Label& label) const;
    void compare_in_debug(u64 meeting, const Label& label) const;

    Communicator& group_;
    std::unique_ptr<SharedWindow> window_;
    u64 meetings_ = 0;
};

}  // namespace moesaic
