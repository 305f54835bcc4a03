// The section parallel.placement.
#pragma once

#include "runtime/config/limits.h"

namespace moesaic {

/// Which rank holds which experts. No result depends on it, only how even the ranks' loads are.
struct PlacementConfig {
    std::string kind = "contiguous";
    i64 seed = 0, every = 100, copies = 0;
    double min_gain = 0.05;
    bool operator==(const PlacementConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choice(
            "kind", kind, {"contiguous", "permuted", "load_aware"},
            "Experts by number, in a random order, or moved while training so that ranks' loads are even");
        v.value("seed", seed, kNotNegative, "permuted: which order");
        v.value("every", every, kPositive,
                "load_aware: steps between decisions, each by the load since the last");
        v.value("min_gain", min_gain, {0, 0.999},
                "load_aware: experts stay where the fullest rank's load would fall by a smaller share");
        v.value("copies", copies, {0, 64},
                "load_aware: places of every rank for copies of other ranks' hottest experts");
    }
};

}  // namespace moesaic
