// The first record of a run: what runs where.
#pragma once

#include "launch/rank_runtime.h"
#include "launch/run_setup.h"
#include "runtime/metrics/records.h"

namespace moesaic {

[[nodiscard]] RunRecord run_record(const RankRuntime& runtime, const RunSetup& run);

}  // namespace moesaic
