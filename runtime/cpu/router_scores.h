// Scores of experts and what is chosen by them: sigmoid, Sinkhorn, tokens for experts, prototypes, the bias.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void gather_choices(const GatherChoices& operation, Range rows);
void normalize_rows(const NormalizeRows& operation, Range rows);
void sigmoid_scores(const SigmoidScores& operation, Range rows);
void choose_tokens(const ChooseTokens& operation, Range objects);
void sinkhorn(const Sinkhorn& operation, Range objects);
void prototype_logits(const PrototypeLogits& operation, Range rows);
/// The two results of the backward: dx by rows, d_prototype by prototypes.
void prototype_input_grad(const PrototypeLogitsGrad& operation, Range rows);
void prototype_grad(const PrototypeLogitsGrad& operation, Range prototypes);
void balance_bias(const BalanceBias& operation);

}  // namespace moesaic::cpu
