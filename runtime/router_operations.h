// What routers want computed besides a softmax: scores, choices of experts or of tokens, noise, prototypes.
#pragma once

#include "runtime/base/philox.h"
#include "runtime/tensor.h"

namespace moesaic {

// Letters, types and rules as in runtime/backend.h. Objects are `rows_per_object` consecutive tokens, O of
// them; the last may be short.

/// By what groups of experts compete where a token may use the experts of some groups only.
enum class GroupScore : std::uint8_t {
    top1,      ///< the group's largest score (DeepSeek-V2)
    top2_sum,  ///< the sum of its two largest (DeepSeek-V3)
};

/// The K best of each row in descending order, ties to the lower index: by scores + bias, among the
/// `top_groups` groups (of `groups` groups of consecutive columns) that score best, groups too with ties to
/// the lower. scores real [T,E]; bias real [E] or empty; index i32 [T,K]; value real [T,K] is the score of
/// the choice without the bias.
struct TopK {
    ConstTensorView scores;
    TensorView index, value;
    ConstTensorView bias = {};
    i64 groups = 1, top_groups = 1;
    GroupScore group_score = GroupScore::top1;
};

/// value[t,k] = scores[t, index[t,k]], 0 where index is -1. scores real [T,E], index i32 [T,K], value real
/// [T,K].
struct GatherChoices {
    ConstTensorView scores, index;
    TensorView value;
};

/// x[t] *= scale / (sum of x[t] + 1e-20); x real [T,K], not negative.
struct NormalizeRows {
    TensorView x;
    double scale = 1;
};

/// score = 1 / (1 + exp(-logits)); probability[t] = score[t] / sum of score[t]; log_sum_exp real [T] of the
/// logits. All others real [T,E].
struct SigmoidScores {
    ConstTensorView logits;
    TensorView score, probability, log_sum_exp;
};

/// Every expert takes the `take` tokens of each object whose scores are largest (all of a shorter object),
/// ties to the lower token (Zhou et al. 2022, eq. 2). scores real [T,E]; index i32 [T,E] is e where expert e
/// takes token t, else -1.
struct ChooseTokens {
    ConstTensorView scores;
    TensorView index;
    i64 rows_per_object = 1, take = 1;
};

/// A fixed number of Sinkhorn iterations in f64 over each object, towards rows that sum to 1 and columns that
/// sum to T_o/E (Sinkhorn and Knopp 1967; Lewis et al. 2021 for routing): the plan is exp(logits[t,e]) *
/// u[t] * v[e], and scores[t,e] = logits[t,e] + log v[e] ranks a row as the plan does. logits, scores real
/// [T,E]; work f64 [T,E] is overwritten.
struct Sinkhorn {
    ConstTensorView logits;
    TensorView scores, work;
    i64 rows_per_object = 1, iterations = 8;
};

/// Which of a token's choices a balance loss counts.
enum class CountedChoices : std::uint8_t {
    all,            ///< all K
    first,          ///< the first of the K
    most_probable,  ///< the expert with the largest probability, ties to the lower index, chosen or not
};
/// What a router's choices add up to over each balance object: `rows_per_object` consecutive tokens, O
/// objects in all, the last may be short. index i32 [T,K] (-1: none), weight real [T,K]; probability real
/// [T,E], log_sum_exp real [T] and load_probability real [T,E], each empty where a router has none: its sums
/// are then 0. counts i64 [O,E] of choices, balance_counts i64 [O,E] of those that `counted` says; in f64, in
/// an order that is a function of the object's tokens alone (on the CPU ascending t): probability_sum [O,E],
/// weight_sum [O,E] over the choices of an expert, load_sum [O,E], z_sum [O] of log_sum_exp^2.
struct RouterSums {
    ConstTensorView probability, log_sum_exp, load_probability, index, weight;
    i64 rows_per_object = 1;
    CountedChoices counted = CountedChoices::all;
    TensorView counts, balance_counts, probability_sum, weight_sum, load_sum, z_sum;
};
/// The forward of a router that scores every expert and takes the best: the same bits as, in turn,
/// row_softmax or, with `sigmoid`, sigmoid_scores of the logits; top_k by the scores plus bias, or by the
/// logits where softmax scores go `over_choices` and there is one group; gather_choices of the weights, which
/// are scores, or with `over_choices` a softmax over the chosen logits (softmax) or scores divided by their
/// sum (sigmoid); scale by weight_scale; and router_sums. logits real [T,E], bias real [E] or empty; score
/// [T,E] is written with `sigmoid` alone; the others as in those operations.
struct Route {
    ConstTensorView logits, bias = {};
    bool sigmoid = false, over_choices = false;
    double weight_scale = 1;
    i64 groups = 1, top_groups = 1;
    GroupScore group_score = GroupScore::top1;
    i64 rows_per_object = 1;
    CountedChoices counted = CountedChoices::all;
    TensorView score = {}, probability, log_sum_exp, index, weight;
    TensorView counts, balance_counts, probability_sum, weight_sum, load_sum, z_sum;
};

/// values[i] = number first + i of the keyed stream: standard normal, or uniform in [low, high). values real.
struct RandomFill {
    Philox random{{0, 0}};
    u64 first = 0;
    bool normal = true;
    double low = 0, high = 1;  ///< of the uniform ones
    TensorView values;
};

/// y (+)= x * factor, element by element. x and y stored alike, factor real; y may be x's memory.
struct MultiplyElements {
    ConstTensorView x, factor;
    TensorView y;
    bool accumulate = false;
};

/// logits = clean + noise * softplus(spread), all real [T,E] (Shazeer et al. 2017, eq. 4).
struct NoisyLogits {
    ConstTensorView clean, spread, noise;
    TensorView logits;
};
/// d_clean += d_logits; d_spread += d_logits * noise * sigmoid(spread).
struct NoisyLogitsGrad {
    ConstTensorView spread, noise, d_logits;
    TensorView d_clean, d_spread;
};

/// The probability that expert e is among the K best of token t when its noise alone is drawn anew (Shazeer
/// et al. 2017, eq. 9): Phi((clean[t,e] - threshold) / softplus(spread[t,e])), where the threshold is the
/// K-th largest noisy logit of the other experts. ranked i32 [T,K+1]: the K+1 experts with the largest
/// logits. All others real [T,E].
struct NoisyLoad {
    ConstTensorView clean, spread, logits, ranked;
    TensorView probability;
};
/// Gradient of the sum over t and e of factor[o,e] * probability[t,e], added to d_clean, d_spread and (the
/// thresholds) d_logits, real [T,E]; o is t's object. factor f64 [O,E], or [1,E] for all objects.
struct NoisyLoadGrad {
    ConstTensorView clean, spread, logits, ranked, factor;
    i64 rows_per_object = 1;
    TensorView d_clean, d_spread, d_logits;
};

/// logits[t,e] = -|x[t] - prototype[e]|^2, summed in ascending order. x [T,H] and prototype [E,H] stored
/// alike, logits real [T,E].
struct PrototypeLogits {
    ConstTensorView x, prototype;
    TensorView logits;
};
/// dx[t] += -2 sum over e of d_logits[t,e] * (x[t] - prototype[e]), and the negative of each addend to
/// d_prototype real [E,H], in ascending t. d_logits real [T,E].
struct PrototypeLogitsGrad {
    ConstTensorView x, prototype, d_logits;
    TensorView dx, d_prototype;
};

/// bias[e] += rate * sign(mean of counts - counts[e]), then minus its mean where `recentre` (Wang et al.
/// 2024, "Auxiliary-loss-free load balancing", algorithm 1). counts i64 [E], bias real [E].
struct BalanceBias {
    ConstTensorView counts;
    double rate = 0;
    bool recentre = false;
    TensorView bias;
};

}  // namespace moesaic
