// Losses of a row's outputs against its target, and their derivatives.
#pragma once

#include "runtime/tensor.h"

namespace moesaic {

// Letters, types and rules as in runtime/backend.h; O outputs of a row.

/// loss f64 [T] = logsumexp(logits[t]) - logits[t, target[t]], 0 where target is -1. logits real [T,V],
/// target i32 [T]; log_sum_exp f64 [T] is kept for the backward.
struct CrossEntropy {
    ConstTensorView logits, target;
    TensorView loss, log_sum_exp;
    /// i32 [T] or empty: 1 where some other logit is not less than the target's, 0 where masked. A tie is wrong:
    /// a model whose logits are all equal knows nothing.
    TensorView wrong = {};
    /// f64 [T] or empty: the target's logit minus the largest other; infinity where masked.
    TensorView margin = {};
};
/// d_logits = scale * (softmax(logits) - one_hot(target)), 0 where target is -1; may be the logits' own
/// memory.
struct CrossEntropyGrad {
    ConstTensorView logits, target, log_sum_exp;
    TensorView d_logits;
    double scale = 1.0;
};

/// loss f64 [T] = mean over the O outputs of (output - target)^2, summed in ascending order in f64. output
/// real [T,O], target f64 [T,O].
struct SquaredError {
    ConstTensorView output, target;
    TensorView loss;
};
/// d_output = scale * 2/O * (output - target), rounded once; may be the outputs' own memory.
struct SquaredErrorGrad {
    ConstTensorView output, target;
    TensorView d_output;
    double scale = 1.0;
};

}  // namespace moesaic
