// Products and attention on bf16 operands: widened, computed by the f32 operation, rounded once. Products
// and activations one after the other, where they are not fused.
#pragma once

#include "runtime/backend.h"

namespace moesaic::cpu {

[[nodiscard]] inline bool any_bf16(ConstTensorView a, ConstTensorView b, ConstTensorView c) {
    return a.dtype == DType::bf16 || b.dtype == DType::bf16 || c.dtype == DType::bf16;
}

// Each calls the same operation of `backend` with f32 operands. Rows of products are widened a few at a time:
// the memory for it depends on widths alone, and a row's sum does not depend on how many rows there are.
void gemm_in_f32(Backend& backend, Stream& stream, const Gemm& operation);
void grouped_gemm_in_f32(Backend& backend, Stream& stream, const GroupedGemm& operation);
void grouped_gemm_weight_grad_in_f32(Backend& backend, Stream& stream,
                                     const GroupedGemmWeightGrad& operation);
// The same bits as one call of the product and one of the activation on all rows.
void grouped_gemm_activation_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                     const Activation& after);
void grouped_gemm_activation_backward_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                              const ActivationGrad& after);
void attention_in_f32(Backend& backend, Stream& stream, const Attention& operation);
void attention_backward_in_f32(Backend& backend, Stream& stream, const AttentionGrad& operation);

}  // namespace moesaic::cpu
