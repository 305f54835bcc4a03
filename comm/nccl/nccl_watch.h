// What one rank has under way on NCCL, and what becomes of it.
#pragma once

#include <nccl.h>

#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "runtime/cuda/gpu_stream.h"

namespace moesaic {

/// The first failure of ranks that are threads of one process. Other processes end with the job.
struct NcclFailure {
    std::mutex mutex;
    std::string why;  ///< empty: none

    void set(std::string_view text);
    [[nodiscard]] std::string get();
};

/// Of all NCCL communicators of a rank; used by its main thread alone. A kernel of NCCL waits for its peers
/// without end and the host only asks: so whoever waits for a stream polls here, where collectives that have
/// ended are booked, and errors, time-outs and the failure of another rank end all of them.
class NcclWatch final : public StreamGuard {
  public:
    explicit NcclWatch(std::shared_ptr<NcclFailure> failure) : failure_(std::move(failure)) {}
    ~NcclWatch() override;

    /// Throws Error, or AbortedError where another rank failed first; no communicator is usable afterwards.
    void poll() override;

    /// From now on errors of `handle` are noticed. It belongs to this until remove().
    void add(ncclComm_t handle, std::string name);
    /// Frees it, which may be null, and forgets what `owner` has under way: in order where all of that has
    /// ended, else at once. `broken`: this rank has failed, and everything ends.
    void remove(ncclComm_t handle, const Communicator* owner, bool broken) noexcept;

    /// Between begin and end a collective of `owner` is enqueued on `stream`.
    void begin(Communicator& owner, const FlightRecorder::Call& call, const Label& label,
               cudaStream_t stream);
    void end(cudaStream_t stream);

    /// Waits until NCCL has taken what it was given (it answers at once and works on). Throws Error with
    /// `what` where that takes longer than `most_seconds`.
    void settle(ncclComm_t handle, const std::string& what, double most_seconds);
    /// Throws Error if it is one, after ending everything.
    void check(ncclResult_t result, const std::string& what, ncclComm_t handle = nullptr);
    /// Ends everything: this rank's communicators, and other threads' where ranks are threads.
    void fail(std::string_view why) noexcept;

  private:
    using Clock = std::chrono::steady_clock;
    struct Operation {
        Communicator* owner = nullptr;
        std::string_view verb;
        Label label;
        cudaEvent_t start = nullptr, end = nullptr;
        std::optional<FlightRecorder::Scope> flight{};
        std::optional<Clock::time_point> waiting_since{};  // since the stream got there
    };
    struct Member {
        ncclComm_t handle;
        std::string name;
    };

    [[nodiscard]] cudaEvent_t take_event();
    [[nodiscard]] bool retire_first();
    void check_first_for_time_out();
    void check_members();
    void abort_members() noexcept;

    std::shared_ptr<NcclFailure> failure_;
    std::vector<Member> members_;
    std::list<Operation> operations_;  // in the order of their calls
    std::vector<cudaEvent_t> idle_events_;
    bool failed_ = false;
};

}  // namespace moesaic
