// A disk that fails or is slow on purpose, so that what a run does about it can be seen.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

/// What AtomicFile meets on a thread; nothing by default.
struct DiskFault {
    bool full = false;   ///< writing fails as on a full disk
    double seconds = 0;  ///< that completing a file takes longer
};

/// The calling thread's.
[[nodiscard]] DiskFault& disk_fault() noexcept;

}  // namespace moesaic
