// Which combinations of primitive rules or skills a run is trained on, and which it never sees.
#pragma once

#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// All multisets of `size` of the numbers [0, rules), ascending inside, in a keyed order: the first
/// floor(held_out * count) are held out. Order within a combination does not matter, so no permuted form of a
/// held-out one is trained on.
struct RuleCombinations {
    std::vector<std::vector<int>> trained, held_out;
};

/// Throws UserError where a part would be empty though asked for, or where a rule occurs in no trained
/// combination: what is held out would then be a rule, not a combination.
[[nodiscard]] RuleCombinations split_combinations(int rules, int size, double held_out, u64 seed);

}  // namespace moesaic
