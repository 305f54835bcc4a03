// What `bench layer` compares with: some tokens and some rows of weights by the definition, in f64.
#pragma once

#include "comm/mesh.h"
#include "launch/bench/layer_problem.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// One forward and backward of a rank: y and dx [T,H] on the host, gradients folded into the store's sums.
struct LayerOutcome {
    ConstTensorView y, dx;
    ParameterStore& store;
};

/// Compares every value of 32 of this rank's tokens (y and dx) and of three hidden units of each of its
/// experts (all three gradients). Returns how many are off by more than rounding: 1e-4 (fp32) or 1e-11 (fp64)
/// of 1 + |value|; in bf16, where every hidden value is rounded, 0.03 of it (of gradients, of the root of
/// their rows + |value|).
[[nodiscard]] i64 count_wrong(const LayerProblem& problem, const Mesh& mesh, const LayerOutcome& outcome);

}  // namespace moesaic
