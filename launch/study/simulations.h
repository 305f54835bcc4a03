// Experiments that need no training: exact gaps of mixtures that fit pure noise, complexities and errors of
// simple experts, beside the bounds.
#pragma once

#include <span>
#include <string_view>

#include "launch/study/study_table.h"
#include "runtime/base/types.h"

namespace moesaic {

struct Simulation {
    std::string_view name, help;
    std::string_view keys;  ///< of the grid, separated by blanks
    /// One draw: the row's measured columns. `point` holds a number for every key.
    void (*draw)(const StudyRow& point, u64 seed, StudyRow& row);
};
[[nodiscard]] std::span<const Simulation> simulations();
[[nodiscard]] const Simulation* find_simulation(std::string_view name);

/// Expected gap of constant experts behind a hash router that fit noise labels: T/(2m) E|S_n|, n binomial(m,
/// 1/T).
[[nodiscard]] double expected_hash_gap(double samples, double experts);

}  // namespace moesaic
