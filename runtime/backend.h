// The boundary between what a layer wants computed and the device that computes it.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "runtime/activation.h"
#include "runtime/fold_rounding.h"
#include "runtime/loss_operations.h"
#include "runtime/memory_pool.h"
#include "runtime/router_operations.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace moesaic {

// Letters in shapes: T tokens on this rank, H model width, F expert width, E experts, e local experts, K
// choices per token, R rows, G groups, V vocabulary, M/N/P the extents of a product.
//
// Types (runtime/README.md, "bf16"): operands hold f64, f32 or bf16 and agree within a call; those called
// "real" are f64 or f32, and f32 where the others are bf16 (accumulation_type). Products alone take bf16 and
// f32 in any mixture. On bf16 an operation is by definition: widen the operands, which is exact, do what the
// same operation does in f32, and round what is written in bf16 once, to nearest even;
// `tests/conformance/op_cases*` compares bit for bit, on a GPU and by AMX tiles all but products and
// attention.
//
// Rules (sums do not depend on the layout; where a GPU's sums do: runtime/cuda/README.md, "What holds"):
//  * one row's result never depends on how many other rows there are, where the row stands, or how many
//  threads run;
//  * products sum over the inner extent in ascending order, each addend fused onto the running sum;
//  * sums over rows (weight gradients) add row by row in ascending order onto what the output already holds,
//  so that
//    splitting the rows over several calls changes no bit.

/// c [M,N] (+)= op(a) [M,P] · op(b) [P,N]. Each may be f32 or bf16 by itself, or all are f64. With `trans_a`
/// a is stored [P,M], with `trans_b` b is stored [N,P].
struct Gemm {
    ConstTensorView a, b;
    TensorView c;
    bool trans_a = false, trans_b = false;
    bool accumulate = false;        ///< onto c instead of overwriting it
    ConstTensorView packed_b = {};  ///< b's copy by pack(), the one for trans_b or the other; or empty
};

/// For each group g with its consecutive rows: c[rows] [.,N] (+)= a[rows] [.,P] · op(b[g]).
/// Types as Gemm. a [R,P], c [R,N]; b [G,P,N], or [G,N,P] with `trans_b`. rows_per_group [G] on the host,
/// summing to at most R. With a_rows i32 [R] row r of a is a[a_rows[r]], as gather_rows would have moved it
/// there; a then has any number of rows, and no entry is -1.
struct GroupedGemm {
    ConstTensorView a, b;
    TensorView c;
    std::span<const i64> rows_per_group;
    bool trans_b = false;
    bool accumulate = false;
    ConstTensorView packed_b = {};  ///< as in Gemm
    ConstTensorView a_rows = {};
};

/// For each group g and each of its parts in ascending order, f64: c[g] [M,N] += a[rows]ᵀ [M,.] · b[rows]
/// [.,N], where the product of a part's rows is summed from zero in f64 if the operands are f64, else in f32;
/// a and b may be bf16. a [R,M], b [R,N], c [G,M,N]; rows_per_part [G, parts] on the host: consecutive rows,
/// by group and then by part. a_rows and b_rows as in GroupedGemm, each on its own. With `from_zero` whatever
/// stands in c is taken for zero. Where adds_to_gradients(), c may have the type in which products are summed
/// instead of f64.
struct GroupedGemmWeightGrad {
    ConstTensorView a, b;
    TensorView c;
    std::span<const i64> rows_per_part;
    ConstTensorView a_rows = {}, b_rows = {};
    bool from_zero = false;
};

/// Copies of a weight [G,N,P] (or [N,P]) in the orders in which products read it as b: `transposed` with
/// trans_b, `plain` without. Products with a copy give the same bits and save the packing; a copy is stale as
/// soon as the weight changes. Each has packed_elements() elements; an empty one is left out. With `halves` 2
/// the transposed copy is of gate and up side by side, N/2 rows each: for grouped_gemm_activation with a
/// gated activation, and for that alone.
struct PackWeight {
    ConstTensorView weight;
    TensorView transposed, plain;
    i64 halves = 1;
    bool past_caches = false;  ///< a hint: all that is packed together is more than caches hold
};
/// Elements of the two copies, the same numbers for every call with the same shape.
struct PackedElements {
    i64 transposed = 0, plain = 0;
};

/// y[r] = weight * x[r] / sqrt(mean(x[r]^2) + eps) over groups of `weight.elements()` columns; x, y [R,C], C
/// a multiple of the weight's extent n (C > n: per head). inverse_rms real [R, C/n] is kept for the backward.
struct RmsNorm {
    ConstTensorView x, weight;
    TensorView y, inverse_rms;
    double eps = 1e-5;
};
/// dx [R,C] is written (or added to, with accumulate_dx); d_weight real [n] is added to. dx may be the same
/// memory as dy.
struct RmsNormGrad {
    ConstTensorView x, weight, inverse_rms, dy;
    TensorView dx, d_weight;
    bool accumulate_dx = false;
};

/// Rotary position embedding in place, pairs (i, i + head_dim/2) as Hugging Face stores them (Su et al. 2021,
/// eq. 34). x [T, heads*head_dim] with row stride `row_stride` elements; position of row t is t % seq_len.
/// cosine, sine real [seq_len, head_dim/2]. `inverse` rotates back, which is the backward.
struct Rope {
    TensorView x;
    i64 row_stride = 0, heads = 0, head_dim = 0, seq_len = 0;
    ConstTensorView cosine, sine;
    bool inverse = false;
};

/// Attention of consecutive sequences of seq_len rows, grouped-query: query head h reads key head
/// h/(heads/kv_heads); a row reads the keys of its sequence up to its own, or all of them without `causal`. q
/// [T, heads*head_dim], k and v [T, kv_heads*head_dim], out [T, heads*head_dim]; log_sum_exp real [heads, T]
/// is kept for the backward. Scores are scaled by 1/sqrt(head_dim). first_key i32 [T] or empty: row t reads
/// the keys of rows max(first row of its sequence, first_key[t]) to t, which holds documents apart that share
/// a sequence; first_key[t] <= t; causal attention alone has it.
struct Attention {
    ConstTensorView q, k, v;
    TensorView out, log_sum_exp;
    i64 heads = 0, kv_heads = 0, head_dim = 0, seq_len = 0;
    ConstTensorView first_key = {};
    bool causal = true;
};
/// dq, dk, dv are written.
struct AttentionGrad {
    ConstTensorView q, k, v, out, log_sum_exp, d_out;
    TensorView dq, dk, dv;
    i64 heads = 0, kv_heads = 0, head_dim = 0, seq_len = 0;
    ConstTensorView first_key = {};
    bool causal = true;
};

/// y[t] = table[index[t]]; table [V,H], index i32 [T], y [T,H].
struct Embedding {
    ConstTensorView table, index;
    TensorView y;
};
/// d_table[index[t]] += dy[t], in ascending t; d_table real.
struct EmbeddingGrad {
    ConstTensorView index, dy;
    TensorView d_table;
};

/// y [R,F] from x [R, halves·F], the gate's half before the up half. For prelu alone: slope [G], one for each
/// group of consecutive rows; rows_per_group [G] on the host, summing to R.
struct Activation {
    ActivationKind kind = ActivationKind::swiglu;
    ConstTensorView x;
    TensorView y;
    ConstTensorView slope = {};
    std::span<const i64> rows_per_group = {};
};
/// dx [R, halves·F], which may be x itself, from x and dy [R,F]. For prelu also d_slope f64 [G] += sum over
/// the group's rows, in ascending order in f64, of the row's sum of dy * min(x, 0).
struct ActivationGrad {
    ActivationKind kind = ActivationKind::swiglu;
    ConstTensorView x, dy;
    TensorView dx;
    ConstTensorView slope = {};
    std::span<const i64> rows_per_group = {};
    TensorView d_slope = {};
};

/// probability real [T,E] = softmax(logits real [T,E]); log_sum_exp real [T].
struct RowSoftmax {
    ConstTensorView logits;
    TensorView probability, log_sum_exp;
};

/// d_logits real [T,E] is written; p, l, w are probability, log_sum_exp and weight, o is t's object, c is
/// weight_scale. For softmax scores (w is c p of the choice, or with `over_choices` c times a softmax over
/// the chosen logits):
///   p * (g - <g, p>) + 2 * z_scale * l * p, where g[e] = balance_factor[o,e] (f64 [O,E], or one row for all
/// objects; empty: 0), plus what d_weight [T,K] adds: c d_k onto g of the choice, or with `over_choices`
/// w_k * (d_k - <d, w> / c) onto the chosen logits.
/// For sigmoid scores s (w is c s of the choice, or with `over_choices` c s divided by the sum of the chosen
/// s; p is s divided by its sum), where sigmoid_logits are the logits, real [T,E]:
///   (1 - s) * p * (g - <g, p>) + 2 * z_scale * l * softmax(logits), plus onto the chosen logits
/// (1 - s) * w_k * d_k, or with `over_choices` (1 - s) * w_k * (d_k - <d, w> / c).
struct RouterGrad {
    ConstTensorView probability, log_sum_exp, sigmoid_logits = {}, index, weight, d_weight, balance_factor;
    i64 rows_per_object = 1;
    bool over_choices = false;
    double weight_scale = 1, z_scale = 0;
    TensorView d_logits;
};

/// How sure a router is: sums over each part of `rows_per_part` consecutive tokens (P parts, the last may be
/// short), in f64 and in an order of the part's own. probability real [T,E], weight real [T,K]. entropy_sum
/// f64 [P] of -sum_e p ln p (0 ln 0 is 0), first_weight_sum f64 [P] of weight[t,0].
struct RouterConfidence {
    ConstTensorView probability, weight;
    i64 rows_per_part = 1;
    TensorView entropy_sum, first_weight_sum;
};

/// y[t] += sigmoid(logit[t]) * rows[t]. logit real [T,1], rows and y [T,H].
struct SigmoidGate {
    ConstTensorView logit, rows;
    TensorView y;
};
/// With s = sigmoid(logit[t]): d_rows[t] = s * dy[t], d_logit[t] = s (1 - s) <dy[t], rows[t]>. d_rows may be
/// the rows' own memory.
struct SigmoidGateGrad {
    ConstTensorView logit, rows, dy;
    TensorView d_rows, d_logit;
};

/// d_weight real [T,K] += factor f64 [O,E] (or one row for all objects) at (t's object, index[t,k]); nothing
/// where index i32 [T,K] is -1.
struct AddByChoice {
    ConstTensorView factor, index;
    i64 rows_per_object = 1;
    TensorView d_weight;
};

/// Of an expert's choices among the tokens of an object (`rows_per_object` consecutive tokens, the last may
/// be short) at most `capacity` stay: those with the largest priority[t,e] (real [T,E]), ties to the lower
/// token; the first come where priority is empty. index i32 [T,K] of numbers below `experts` or -1; kept i32
/// [T,K] is index where a choice stays, else -1.
struct LimitChoices {
    ConstTensorView index, priority;
    i64 experts = 0, rows_per_object = 1, capacity = 1;
    TensorView kept;
};
/// out[t,k] = weight[t,k] * s_t / r_t where kept[t,k] >= 0, else 0: r_t sums the weights of t's kept choices,
/// s_t of all its choices (index >= 0), so that what remains weighs as much as the whole. 0 where r_t is.
/// index and kept i32 [T,K], weight and out real [T,K].
struct RescaleKept {
    ConstTensorView weight, index, kept;
    TensorView out;
};
/// d_weight real [T,K] is written, from d_out [T,K]; it may be the same memory.
struct RescaleKeptGrad {
    ConstTensorView weight, index, kept, d_out;
    TensorView d_weight;
};

/// Stable counting sort of `key` i32 [S] with values in [0, groups) or -1 (left out): order i32 [S] lists the
/// positions of key in group order (only the first sum(counts) entries are written), counts i64 [groups].
struct GroupByKey {
    ConstTensorView key;
    TensorView order, counts;
};

/// out[i] = in[index[i]], zeros where index is -1. in [N,H], index i32 [R], out [R,H]. With accumulate,
/// out[i] += in[index[i]]; with `place` i32 [R], no two alike, out[place[i]] = in[index[i]] in any out [.,H].
struct GatherRows {
    ConstTensorView in, index;
    TensorView out;
    bool accumulate = false;
    ConstTensorView place = {};
    bool past_caches = false;  ///< a hint: what is written is more than caches hold, and read later
};

/// y[t] (+)= sum over k in ascending order of weight[t,k] * rows[slot[t,k]], leaving out slots of -1. rows
/// [S,H], slot i32 [T,K], weight real [T,K] or empty (all 1), y [T,H].
struct CombineRows {
    ConstTensorView rows, slot, weight;
    TensorView y;
    bool accumulate = false;
};
/// weight and d_weight real. d_rows[slot[t,k]] = weight[t,k] * dy[t]; d_weight[t,k] = <dy[t],
/// rows[slot[t,k]]> (0 for slot -1).
struct CombineRowsGrad {
    ConstTensorView rows, slot, weight, dy;
    TensorView d_rows, d_weight;
};

/// Decoupled AdamW with bias correction (Loshchilov and Hutter 2019, algorithm 2), as PyTorch computes it.
/// All reals flat [N]; the gradient is multiplied by grad_scale first. `step` counts from 1.
struct AdamW {
    TensorView parameter, first_moment, second_moment;
    ConstTensorView gradient;
    TensorView rounded = {};  ///< bf16, or empty: takes the f32 parameter rounded once to nearest even
    double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0, grad_scale = 1;
    i64 step = 1;
};

class Backend {
  public:
    virtual ~Backend() = default;

    [[nodiscard]] virtual std::string_view name() const = 0;
    [[nodiscard]] virtual MemoryPool& pool() = 0;
    /// False for a dry run: operations check and allocate, but nothing is computed and contents mean nothing.
    [[nodiscard]] virtual bool computes() const { return true; }
    [[nodiscard]] Tensor allocate(Shape shape, DType dtype) { return Tensor(pool(), shape, dtype); }
    [[nodiscard]] virtual std::unique_ptr<Stream> make_stream(std::string_view name) = 0;

    virtual void copy(Stream&, ConstTensorView from, TensorView to) = 0;  ///< same dtype and element count
    virtual void zero(Stream&, TensorView) = 0;
    virtual void fill(Stream&, double value, TensorView y) = 0;      ///< y = value, real
    virtual void add(Stream&, ConstTensorView x, TensorView y) = 0;  ///< y += x
    /// Whether a micro-batch's gradients, of type real, may be their own sums (fold, GroupedGemmWeightGrad).
    [[nodiscard]] virtual bool adds_to_gradients() const { return false; }
    /// sum (f64) += part (real), then part = 0: what one micro-batch added joins the sum of all. Where
    /// adds_to_gradients(), `sum` may be `part` itself: part = 0 + part.
    virtual void fold(Stream&, TensorView part, TensorView sum, const FoldRounding& rounding) = 0;
    /// to = from, rounded once to nearest even where `to` is narrower: f64 to all three, f32 and bf16 to f32
    /// and bf16.
    virtual void convert(Stream&, ConstTensorView from, TensorView to) = 0;
    virtual void scale(Stream&, double factor, TensorView y) = 0;  ///< y *= factor
    virtual void clamp(Stream&, double limit, TensorView y) = 0;   ///< to +- limit, rounded to y's type
    virtual void clamp_grad(Stream&, double limit, ConstTensorView y,
                            TensorView dy) = 0;  ///< dy = 0 where |y| >= limit, rounded to y's type

    virtual void gemm(Stream&, const Gemm&) = 0;
    virtual void grouped_gemm(Stream&, const GroupedGemm&) = 0;
    virtual void grouped_gemm_weight_grad(Stream&, const GroupedGemmWeightGrad&) = 0;
    /// grouped_gemm(product), then activation(after) with x = product.c, bit for bit, with the activation
    /// applied while results are in the cache. `after` has no x of its own and takes the product's groups.
    virtual void grouped_gemm_activation(Stream&, const GroupedGemm& product, const Activation& after) = 0;
    /// grouped_gemm(product) with a result that is kept nowhere, then activation_backward(after) with dy =
    /// that result, rounded to dx's type; bit for bit. product.c is empty, `after` has no dy and takes the
    /// product's groups.
    virtual void grouped_gemm_activation_backward(Stream&, const GroupedGemm& product,
                                                  const ActivationGrad& after) = 0;
    [[nodiscard]] virtual PackedElements packed_elements(Shape weight, DType dtype, i64 halves = 1) const = 0;
    virtual void pack(Stream&, const PackWeight&) = 0;
    /// Where sums have a fixed order: that of a gemm of `dtype` into f32 or f64 may be cut into accumulating
    /// ones, each but the last of a multiple of so many addends, without changing a bit. Divides 256.
    [[nodiscard]] virtual i64 addends_together(DType /*dtype*/) const { return 1; }

    virtual void rms_norm(Stream&, const RmsNorm&) = 0;
    virtual void rms_norm_backward(Stream&, const RmsNormGrad&) = 0;
    virtual void rope(Stream&, const Rope&) = 0;
    virtual void attention(Stream&, const Attention&) = 0;
    virtual void attention_backward(Stream&, const AttentionGrad&) = 0;
    virtual void embedding(Stream&, const Embedding&) = 0;
    virtual void embedding_backward(Stream&, const EmbeddingGrad&) = 0;
    virtual void activation(Stream&, const Activation&) = 0;
    virtual void activation_backward(Stream&, const ActivationGrad&) = 0;
    virtual void cross_entropy(Stream&, const CrossEntropy&) = 0;
    virtual void cross_entropy_backward(Stream&, const CrossEntropyGrad&) = 0;
    virtual void squared_error(Stream&, const SquaredError&) = 0;
    virtual void squared_error_backward(Stream&, const SquaredErrorGrad&) = 0;

    virtual void row_softmax(Stream&, const RowSoftmax&) = 0;
    virtual void top_k(Stream&, const TopK&) = 0;
    virtual void gather_choices(Stream&, const GatherChoices&) = 0;
    virtual void normalize_rows(Stream&, const NormalizeRows&) = 0;
    virtual void sigmoid_scores(Stream&, const SigmoidScores&) = 0;
    virtual void choose_tokens(Stream&, const ChooseTokens&) = 0;
    virtual void sinkhorn(Stream&, const Sinkhorn&) = 0;
    virtual void random_fill(Stream&, const RandomFill&) = 0;
    virtual void multiply_elements(Stream&, const MultiplyElements&) = 0;
    virtual void noisy_logits(Stream&, const NoisyLogits&) = 0;
    virtual void noisy_logits_backward(Stream&, const NoisyLogitsGrad&) = 0;
    virtual void noisy_load(Stream&, const NoisyLoad&) = 0;
    virtual void noisy_load_backward(Stream&, const NoisyLoadGrad&) = 0;
    virtual void prototype_logits(Stream&, const PrototypeLogits&) = 0;
    virtual void prototype_logits_backward(Stream&, const PrototypeLogitsGrad&) = 0;
    virtual void balance_bias(Stream&, const BalanceBias&) = 0;
    virtual void router_sums(Stream&, const RouterSums&) = 0;
    virtual void route(Stream&, const Route&) = 0;
    virtual void router_backward(Stream&, const RouterGrad&) = 0;
    virtual void router_confidence(Stream&, const RouterConfidence&) = 0;
    virtual void sigmoid_gate(Stream&, const SigmoidGate&) = 0;
    virtual void sigmoid_gate_backward(Stream&, const SigmoidGateGrad&) = 0;
    virtual void add_by_choice(Stream&, const AddByChoice&) = 0;
    virtual void limit_choices(Stream&, const LimitChoices&) = 0;
    virtual void rescale_kept(Stream&, const RescaleKept&) = 0;
    virtual void rescale_kept_backward(Stream&, const RescaleKeptGrad&) = 0;
    virtual void group_by_key(Stream&, const GroupByKey&) = 0;
    virtual void gather_rows(Stream&, const GatherRows&) = 0;
    virtual void combine_rows(Stream&, const CombineRows&) = 0;
    virtual void combine_rows_backward(Stream&, const CombineRowsGrad&) = 0;

    virtual void adamw(Stream&, const AdamW&) = 0;
    /// sums[b] f64 = sum of squares of values[b*block .. (b+1)*block), each in f64 in a fixed order; the last
    /// block may be short.
    virtual void block_sum_squares(Stream&, ConstTensorView values, i64 block, TensorView sums) = 0;
};

/// The CPU back end with its own pool of `threads` worker threads (1: none besides the caller). Every rank
/// owns one.
[[nodiscard]] std::unique_ptr<Backend> make_cpu_backend(int threads,
                                                        StreamMode mode = StreamMode::inline_execution,
                                                        u64 shuffle_seed = 0);

}  // namespace moesaic
