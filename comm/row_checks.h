// Whether rows between ranks arrive as they were sent; and, to try that, what spoils them on the way.
#pragma once

#include <cstddef>
#include <functional>

#include "comm/communicator.h"

namespace moesaic {

/// Of one rank, all its communicators over host memory.
struct RowChecks {
    /// all_to_all_rows compares checksums of what was sent and of what arrived: an Error names the ranks
    /// between which rows have changed. The same on all ranks.
    bool checksums = false;
    /// Called with the rows from other ranks before anybody looks at them; usually empty.
    std::function<void(const Label&, std::byte* rows, i64 bytes)> tamper;
};

/// Of the rank that the calling thread works for, as run_context: to be set before its collectives.
[[nodiscard]] RowChecks& row_checks() noexcept;

}  // namespace moesaic
