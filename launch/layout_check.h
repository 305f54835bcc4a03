// The layout certificate: one batch, or a few steps, on several layouts, compared number by number.
#pragma once

#include <optional>
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

/// One layout against the one-rank run of the same precision and an f64 run on one rank. Of experts in slices
/// the smallest layout, a rank for each slice, takes the place of the one-rank run: partial sums depend on
/// their number. The f64 run has whole experts.
struct LayoutResult {
    int world = 1, expert_parallel = 1;
    int smallest = 1;  ///< ranks of the run that "one-rank run" means below
    double loss = 0, loss_aux = 0, loss_z = 0, grad_norm = 0;
    bool loss_bits = false;      ///< step 1's loss of every sequence is the one-rank run's to the last bit
    double loss_difference = 0;  ///< relative, of step 1's loss
    bool routing_equal = false;  ///< every token visits the same experts in every layer
    bool norm_same_on_ranks = false;  ///< the clip norm is one number on all ranks, to the last bit
    /// Expert gradients are the one-rank run's bits; only asked where experts have no replicas and add up
    /// their sources in the order of ranks (ExchangeSizes::own_rows_first), or exactly.
    std::optional<bool> expert_bits;
    double balance_difference = 0;  ///< relative, the worst of the balance losses
    double norm_difference = 0;     ///< relative to f64
    /// Relative L2 of the worst tensor against f64, or of all tensors (LayoutTolerances::whole).
    double gradient_difference = 0;
    std::string worst_tensor;
    double layout_difference = 0;  ///< the same against the one-rank run: rounding of sums over ranks alone
    std::string worst_layout_tensor;
    double later_loss_difference = 0;  ///< worst relative difference of losses after step 1
    bool weight_bits = false;          ///< the weights after all steps are the one-rank run's to the last bit
    i64 routing_differs_at = 0;        ///< first step whose routing is not the one-rank run's; 0: none
    i64 nonfinite_at = 0;              ///< first step whose loss is not finite; 0: none
    bool routing_as_reference = true;  ///< f64 routes alike; a near tie may fall the other way in f32
    bool ok = false;
    std::string why;  ///< empty when ok
};

/// How far numbers may lie apart, all relative. `exact` is against f64 and measures the arithmetic; `layout`
/// is against the one-rank run of the same precision, whose partial sums are the same bits.
struct LayoutTolerances {
    double exact = 0, layout = 0, loss = 0;
    bool same_bits = true;  ///< with cpu.gemm: onednn sums of a row depend on how many rows there are
    bool elastic = false;   ///< losses and weights have to be the same bits (train.determinism)
    bool whole = false;     ///< `exact` holds for the gradient of all tensors as one vector, not for each
};
/// f32 and f64 by their rounding. bf16 keeps 8 bits: one rounding errs by up to 2^-9 = 0.2 %, which grows to
/// less than a percent through a network and back; and some tokens' near ties fall the other way than in f64,
/// which changes single experts' gradients by any share but the whole gradient hardly. What layouts may
/// differ by is as small as in f32, since gradients are summed in f32 and f64.
[[nodiscard]] LayoutTolerances layout_tolerances(DType dtype);

/// A layout, or a world with all of its layouts, that the configuration cannot have.
struct LeftOutLayout {
    int world = 1;
    std::optional<int> expert_parallel;  ///< all
    std::string why;
};
/// Of those that divide worlds into expert-parallel ranks and slices evenly.
[[nodiscard]] std::vector<LeftOutLayout> left_out_layouts(const RunSetup& run,
                                                          const std::vector<int>& worlds);
/// "2 ranks, expert parallel 1: why".
[[nodiscard]] std::string text_of(const LeftOutLayout& layout);

/// Runs every layout of every world but those that are left out; throws UserError where that leaves none.
[[nodiscard]] std::vector<LayoutResult> check_layouts(const RunSetup& run, const LayoutCheckOptions& options);

}  // namespace moesaic
