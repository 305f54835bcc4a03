// How many rows an expert takes, and what is left of a routing when more want to go there.
#pragma once

#include "comm/routing.h"
#include "comm/step_context.h"
#include "layers/model_spec.h"

namespace moesaic {

/// Rows that an expert takes of `tokens` tokens (T) with K choices each, with f = factor:
///   ceil        ceil(f K T / E)                         Megatron-LM, DeepSpeed
///   floor       floor(f K T / E)                        Switch Transformer, MegaBlocks
///   tutel       K floor(f ceil(T / E))                  Tutel
///   fastmoe     floor(ceil(f T) K / E)                  FastMoE's GShard gate
///   colossalai  floor(f K T / E), then up to even       ColossalAI
///   olmo        floor(f K T / E), then up to eights     OLMo-core
/// but never less than one, and never more than T, which no expert can exceed.
[[nodiscard]] i64 rows_of_capacity(const CapacitySpec& capacity, i64 tokens, i64 top_k, i64 experts);

/// Tokens among which a micro-batch of T tokens counts and drops.
[[nodiscard]] i64 tokens_per_object(const CapacitySpec& capacity, i64 tokens, i64 seq_len);

/// Rows that an expert can get from one micro-batch, at most.
[[nodiscard]] i64 most_rows_of_micro_batch(const ModelSpec& spec);

/// What stays of `routing` [T,K]: experts are -1 where a choice is dropped. Drops are decided in
/// objects that no layout changes (a sequence, or the micro-batch), by `probability` real [T,E]; where that
/// is empty, as routers without one leave it, the first come stay. The backward wants the routing as it was.
[[nodiscard]] Routing keep_within_capacity(StepContext& context, const ModelSpec& spec, i64 seq_len,
                                           ConstTensorView probability, const Routing& routing);
/// The adjoint for weights: d_weight [T,K] by `kept`'s weights becomes that by `routing`'s, in place.
void keep_within_capacity_backward(StepContext& context, const CapacitySpec& capacity, const Routing& routing,
                                   const Routing& kept, TensorView d_weight);

/// In words, e.g. "80 rows an expert in each sequence of 256 tokens (factor 1.25, ceil), dropped by
/// probability"; "dropless" without a capacity.
[[nodiscard]] std::string describe_capacity(const ModelSpec& spec);

}  // namespace moesaic
