// The identity of the rank that a thread works for: log lines and errors carry it.
#pragma once

#include <cstdint>

namespace moesaic {

/// Who is speaking. One per thread because ranks may be threads of one process.
struct RunContext {
    int rank = 0;
    int world_size = 1;
    std::int64_t step = -1;  ///< -1: outside of any training step
};

/// The calling thread's context; a rank's main thread sets it at start-up and the trainer once a step.
[[nodiscard]] RunContext& run_context() noexcept;

}  // namespace moesaic
