// Which rank the others wait for, and what takes it so long.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "runtime/step_timeline.h"

namespace moesaic {

/// Seconds of a rank's own work in a step, by WorkPhase, and last what is in none of them: packing of rows,
/// sums of gradients, the host. Waiting and collectives are left out.
using OwnWork = std::array<double, kWorkPhases + 1>;

struct SlowestRank {
    i64 rank = 0;
    std::string phase;          ///< whose time exceeds the ranks' mean most
    double excess_seconds = 0;  ///< of all its work beyond the mean
};
/// By rank. None where no work was seen, as of a device's stream.
[[nodiscard]] std::optional<SlowestRank> find_slowest_rank(std::span<const OwnWork> work);

/// Collective over `world`.
[[nodiscard]] std::vector<OwnWork> gather_work(Communicator& world, Stream& stream, OwnWork mine);

}  // namespace moesaic
