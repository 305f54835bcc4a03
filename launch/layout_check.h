// The layout certificate: one batch, or a few steps, on several layouts, compared number by number.
#pragma once

#include <string>
#include <vector>

#include "comm/planted_defects.h"
#include "launch/run_setup.h"

namespace moesaic {

/// What to compare. Ranks are threads of this process.
struct LayoutCheckOptions {
    std::vector<int> worlds{1, 2, 4};
    i64 steps = 1;
    PlantedDefects
        defects;  ///< for the tests of the check itself; planted on every layout of more than one rank
};

/// One layout against the one-rank run of the same precision and an f64 run on one rank.
struct LayoutResult {
    int world = 1, expert_parallel = 1;
    double loss = 0, loss_aux = 0, loss_z = 0, grad_norm = 0;
    bool loss_bits = false;      ///< step 1's loss of every sequence is the one-rank run's to the last bit
    bool routing_equal = false;  ///< every expert got as many tokens in every layer
    bool norm_same_on_ranks = false;  ///< the clip norm is one number on all ranks, to the last bit
    /// Expert gradients are the one-rank run's bits; only asked where experts have no replicas.
    bool expert_bits = true;
    double balance_difference = 0;   ///< relative, auxiliary and z loss, the worse
    double norm_difference = 0;      ///< relative to f64
    double gradient_difference = 0;  ///< relative L2 of the worst tensor against f64
    std::string worst_tensor;
    double later_loss_difference = 0;  ///< worst relative difference of losses after step 1
    i64 routing_differs_at = 0;        ///< first step whose expert loads are not the one-rank run's; 0: none
    bool routing_as_reference = true;  ///< f64 routes alike; a near tie may fall the other way in f32
    bool ok = false;
    std::string why;  ///< empty when ok
};

/// Runs every layout of every world: each expert-parallel size that divides it and the number of experts.
[[nodiscard]] std::vector<LayoutResult> check_layouts(const RunSetup& run, const LayoutCheckOptions& options);

}  // namespace moesaic
