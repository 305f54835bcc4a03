// Products and the activations behind them one after the other, where they are not fused.
#pragma once

#include "runtime/backend.h"

namespace moesaic::cpu {

// The same bits as one call of the product and one of the activation on all rows.
void grouped_gemm_activation_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                     const Activation& after);
/// Some rows at a time, so that the memory for dy depends on its width alone.
void grouped_gemm_activation_backward_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                              const ActivationGrad& after);

}  // namespace moesaic::cpu
