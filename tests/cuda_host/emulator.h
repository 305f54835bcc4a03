// The emulated GPUs as tests control them: which interleavings, and what was found.
#pragma once

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cuda_host {

/// How the emulator chooses where CUDA leaves a choice.
struct Settings {
    /// Order of the threads of a block (0 ascending, 1 descending, else shuffled at every pass) and of the
    /// streams (the awaited first, the last made first, else at random).
    std::uint64_t seed = 0;
    int devices = 1;                                   ///< 0: as on a machine without a driver
    std::size_t memory_bytes = std::size_t{64} << 30;  ///< free on each device
    /// One kernel of NCCL at a time on a device, as where each takes all of it.
    bool exclusive_nccl = false;
    /// The rank whose all-to-alls of equal counts fail as they are issued, as where its network is out of
    /// order; -1: none.
    int failing_nccl_rank = -1;
    /// Kernels whose names have this in them do not start, as where a device has no code for them. Empty:
    /// none.
    std::string refused_kernel = {};
    /// A thread that waits for as long, while nothing at all happens, is a finding.
    double patience_seconds = 60;
    bool check = false;  ///< by the memory checker (checker.h)
    /// What a thread of a kernel runs in place of g++'s code, by the kernel's symbol and packed arguments
    /// (ptx_program.h). Null, or an empty result: g++'s code.
    std::function<std::function<void()>(const std::string&, const std::vector<std::byte>&)> translate =
        nullptr;
};

/// Before the first reset, by the environment: MOESAIC_EMULATED_GPUS devices, or one; MOESAIC_EMULATED_SEED;
/// MOESAIC_EMULATED_NCCL_FAILS is failing_nccl_rank; check where MOESAIC_EMULATED_CHECK is set.
[[nodiscard]] Settings settings_of_environment();

/// Ends what is queued, forgets errors. Streams and memory stay with whoever made them.
void reset(const Settings& settings);
/// The calling thread, a rank, issues nothing any more: who waits for it waits in vain.
void leave();
/// What the emulator found wrong since the last reset, empty if nothing: races at barriers, divergence,
/// misuse of streams. The first finding; everything after it may be a consequence.
[[nodiscard]] std::string first_finding();
/// Kernels that have run since the last reset.
[[nodiscard]] std::int64_t kernels_run();
/// Bytes of copies from and to page-locked host memory since the last reset.
[[nodiscard]] std::int64_t staged_bytes();
/// What is enqueued on `stream` meanwhile waits. Nothing of the emulator's runs before it is waited for, and
/// no Hold is awaited while it is there: on a GPU one holds the stream, for two seconds at most.
class Hold {
  public:
    explicit Hold(cudaStream_t stream);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
};
/// Allocations that are not freed.
[[nodiscard]] std::int64_t live_allocations();

}  // namespace cuda_host
