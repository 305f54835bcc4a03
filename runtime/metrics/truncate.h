// Takes back what a run wrote after the checkpoint that it is resumed from.
#pragma once

#include <string>

#include "runtime/base/types.h"

namespace moesaic {

/// Removes the records of later steps than `step` from the run folder's metrics.jsonl and metrics.csv, and a
/// last line without line break; all else stays byte for byte, the order of lines too. Each file is replaced
/// atomically, and left alone where there is nothing to remove; a missing file is no error.
void truncate_metrics_after(const std::string& folder, i64 step);

}  // namespace moesaic
