// How evenly tokens are spread over experts, in a few numbers.
#pragma once

#include <span>

#include "runtime/base/types.h"

namespace moesaic {

/// Of one layer's load; all are those of an even load where there are no tokens.
struct LoadSummary {
    double entropy = 0;   ///< nats; at most ln E
    double evenness = 1;  ///< (entropy - ln k) / (ln E - ln k): 1 even, 0 all tokens on the same k experts
    double max_over_mean = 1;  ///< busiest expert; at most E / k
    double variation = 0;      ///< standard deviation over mean
    i64 dead = 0;              ///< experts without tokens
    i64 busiest = 0;           ///< expert number, the lowest of several
};

/// `load` counts tokens per expert [E], each token in at most `top_k` of them.
[[nodiscard]] LoadSummary summarize_load(std::span<const i64> load, i64 top_k);

}  // namespace moesaic
