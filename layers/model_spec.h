// The shape of a model with every value resolved: what the layers read instead of the configuration.
#pragma once

#include <optional>
#include <string>

#include "comm/exchange/exchange_settings.h"
#include "runtime/activation.h"
#include "runtime/router_operations.h"

namespace moesaic {

enum class QkNorm : std::uint8_t {
    none,
    full,  ///< RMSNorm over the whole projected vector (OLMoE)
    head,  ///< RMSNorm over each head (Qwen3)
};

/// What a router's weights come from: a softmax over all experts, one over the chosen experts' logits, or
/// each expert's sigmoid.
enum class RouterScore : std::uint8_t { softmax, softmax_over_top_k, sigmoid };

/// The tokens whose balance one auxiliary loss measures.
enum class BalanceScope : std::uint8_t { sequence, micro, global };

struct RouterSpec {
    std::string kind = "top_k";  ///< a name of the table in layers/routers/table.cpp
    RouterScore score = RouterScore::softmax;
    bool normalize = true;           ///< weights divided by their sum
    double scale = 1;                ///< of all weights
    i64 groups = 1, top_groups = 1;  ///< a token uses experts of the best `top_groups` of `groups` groups
    GroupScore group_score = GroupScore::top1;
    double bias_rate = 0.001;  ///< sigmoid_bias: how far a bias moves after a step
    bool bias_recentre = false;
    double jitter = 0;  ///< switch: of the router's input
    i64 sinkhorn_iterations = 8;
    bool sinkhorn_per_sequence = true;  ///< else over the micro-batch
    bool learn_prototypes = true;
    u64 hash_seed = 0;
    std::string trace;                ///< replay: the file
    std::string traffic = "uniform";  ///< uniform: a pattern of comm/traffic
    u64 seed = 1;                     ///< run.seed, of noise and jitter
};

/// Whose definition of the load-balance loss; formulas in layers/balance.h.
enum class BalanceConvention : std::uint8_t { megatron, gshard, hf, switch_transformer };

/// Coefficients of the losses that keep experts evenly used.
struct BalanceSpec {
    double aux = 0.01;  ///< of the load-balance loss
    double z = 0.001;   ///< of the mean squared logsumexp of the router's logits
    BalanceScope scope = BalanceScope::micro;
    BalanceConvention convention = BalanceConvention::megatron;
    double importance = 0;  ///< of the squared coefficient of variation of the experts' weights
    double load = 0;        ///< of that of the experts' expected loads, routers with noise
};

/// Which choices stay when an expert is full.
enum class DropPolicy : std::uint8_t {
    probability,  ///< the most probable, ties to the lower token
    position,     ///< the first come
};

/// Whose rule turns factor * K * T / E into whole rows; formulas in layers/capacity.h.
enum class CapacityRounding : std::uint8_t { ceil, floor, tutel, fastmoe, colossalai, olmo };

/// The tokens among which an expert's capacity is counted. Never those of a rank.
enum class CapacityScope : std::uint8_t { sequence, micro };

struct CapacitySpec {
    double factor = 1.25;
    DropPolicy policy = DropPolicy::probability;
    CapacityRounding rounding = CapacityRounding::ceil;
    CapacityScope per = CapacityScope::sequence;
    bool renormalize = false;  ///< what is kept of a token weighs as much as its whole choice did
    bool pad = false;          ///< experts compute on their full capacity, zero rows where there are fewer
};

/// What stands between input and outputs.
enum class ModelKind : std::uint8_t {
    transformer,  ///< blocks of attention and feed-forward
    mlp,          ///< blocks of a feed-forward alone: every row by itself
    momlp,        ///< an MLP for each cell of the inputs, see cell_experts.h
};

/// What a row's outputs are compared with its target by.
enum class LossKind : std::uint8_t {
    cross_entropy,  ///< nats; the target is one of the outputs
    squared_error,  ///< mean over the outputs; the target has a value for each
};

struct ModelSpec {
    ModelKind kind = ModelKind::transformer;
    LossKind loss = LossKind::cross_entropy;
    i64 features = 0;      ///< of a row of the input, a constant one included; 0: rows are token ids
    i64 outputs = 0;       ///< classes or values; 0: one for each token id
    bool causal = true;    ///< a row attends to the rows up to its own; else to its whole sequence
    bool residual = true;  ///< a feed-forward stands behind a norm and around a residual (mlp: may be false)

    i64 vocabulary = 256;
    i64 width = 128;  ///< H; momlp: of an expert's hidden layers
    int layers = 4;   ///< blocks; momlp: hidden layers of an expert
    i64 heads = 4, kv_heads = 4, head_dim = 32;
    QkNorm qk_norm = QkNorm::none;
    double norm_eps = 1e-5;
    double rope_theta = 10000;
    double init_std = 0.02;
    std::optional<double> clip_qkv;                      ///< q, k and v are clamped to +- this
    ActivationKind activation = ActivationKind::swiglu;  ///< of experts and of dense feed-forwards
    i64 dense_hidden = 512;  ///< width of the feed-forward in layers without experts
    bool tie_embeddings = false;

    i64 experts = 8;  ///< of a layer; 0: no layer has any
    i64 top_k = 2;
    i64 hidden = 256;          ///< F, width of one expert
    int every = 1;             ///< layer i has experts where (i + 1) % every == 0
    i64 shared_experts = 0;    ///< that every token visits: one feed-forward of width shared_hidden()
    bool shared_gate = false;  ///< its result is multiplied by sigmoid(x · w)
    RouterSpec router;
    BalanceSpec balance;
    std::optional<CapacitySpec> capacity;  ///< empty: dropless

    i64 seq_len = 256;
    i64 targets_at_end = 0;       ///< of a sequence: its last so many rows have targets; 0: all rows
    i64 micro_sequences = 4;      ///< sequences of a micro-batch, at most
    i64 chunks = 1;               ///< in which a micro-batch's rows travel, at the mean load
    double receive_budget = 2.0;  ///< rows received at once, as a multiple of the mean
    ExchangeSettings exchange;
    bool recompute = false;  ///< blocks keep their input alone and compute forward again in the backward

    /// V of the head: what a row's outputs are.
    [[nodiscard]] i64 head_outputs() const { return outputs > 0 ? outputs : vocabulary; }
    /// Targets of a sequence are its own next tokens.
    [[nodiscard]] bool predicts_next_token() const { return features == 0 && outputs == 0; }
    /// The cells of a MoMLP count as its first layer, however deep they are.
    [[nodiscard]] bool has_experts(int layer) const {
        return experts > 0 && (kind == ModelKind::momlp ? layer == 0 : (layer + 1) % every == 0);
    }
    /// Whether routers send rows to experts of other ranks; a MoMLP's ranks read the rows of their own cells.
    [[nodiscard]] bool routes_rows() const { return experts > 0 && kind != ModelKind::momlp; }
    [[nodiscard]] int expert_layers() const {
        return experts == 0 ? 0 : kind == ModelKind::momlp ? 1 : layers / every;
    }
    [[nodiscard]] i64 shared_hidden() const { return shared_experts * hidden; }
    /// Parameters of a feed-forward with `inner` hidden columns: up, down, the gate of gated activations, the
    /// slope of a learnt one.
    [[nodiscard]] i64 feed_forward_parameters(i64 inner) const {
        const i64 slopes = activation == ActivationKind::prelu ? 1 : 0;
        return (1 + activation_halves(activation)) * width * inner + slopes;
    }
    /// Where no documents are masked.
    [[nodiscard]] i64 targets_per_sequence() const { return targets_at_end > 0 ? targets_at_end : seq_len; }
    [[nodiscard]] i64 micro_tokens() const { return micro_sequences * seq_len; }
};

}  // namespace moesaic
