// `exchange: auto`: every exchange that gives the same bits is tried at start-up, and the fastest taken.
#pragma once

#include <string>
#include <vector>

#include "comm/exchange/exchange.h"

namespace moesaic {

struct ExchangeTiming {
    std::string name;
    /// There and back, forward and backward, without experts, of the slowest rank: flat's median, times the
    /// median of this one's over flat's in the same turn.
    double milliseconds = 0;
};

struct ExchangeChoice {
    ExchangeSettings settings;
    std::vector<ExchangeTiming> measured;  ///< empty where there was nothing to choose
    i64 tokens = 0;                        ///< of a rank, that were sent

    /// "exchange hierarchical, chosen by measurement of 256 tokens a rank: flat 3.1 ms, hierarchical 1.9 ms";
    /// without a measurement "exchange flat".
    [[nodiscard]] std::string text() const;
};

/// Collective over mesh.world(). The same choice on every rank; takes at most about half a second, where
/// there is a choice: groups of several ranks on one node, or on nodes that each have as many of them.
/// Routing is uniform, tokens are as many as a micro-batch has unless that took longer than a fiftieth of a
/// second. An exchange that this machine has no room for is left out. Memory is taken from context.backend.
/// In a dry run nothing is measured: flat.
[[nodiscard]] ExchangeChoice choose_exchange(StepContext& context, const ExchangeSizes& sizes,
                                             const ExchangeSettings& settings);

}  // namespace moesaic
