// Attention of bf16 by a matrix unit's tiles, or in their order: Bf16Products::tiles.
#pragma once

#include "runtime/cpu/attention.h"

namespace moesaic {

/// One head of one sequence. Scores are sums of bf16 products in f32; probabilities multiply in two parts of
/// bf16, about 16 bits, as on GPUs.
void attend_by_tiles(const SequenceAttention<BFloat16>& attention, i64 sequence, i64 head);

/// One key head of one sequence: its query heads one after the other. Probabilities and gradients of scores
/// are rounded to bf16 before they multiply.
void attend_backward_by_tiles(const SequenceAttentionGrad<BFloat16>& grad, i64 sequence, i64 key_head);

}  // namespace moesaic
