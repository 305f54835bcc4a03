// What the emulator's streams know of the emulated NCCL.
#pragma once

#include <cstdint>
#include <string>

namespace cuda_host {

// All under the scheduler's lock.

/// Ranks of the largest communicator: so many threads there are at least; 0 where there is none.
[[nodiscard]] std::int64_t nccl_ranks();
/// Who waits for whom: "rank 1 of 'world', stream 3: recv of 16 int8 from rank 2; ...".
[[nodiscard]] std::string nccl_waiting();
/// Forgets what is under way, as after a failed test.
void reset_nccl();

}  // namespace cuda_host
