// The shape of a model with every value resolved: what the layers read instead of the configuration.
#pragma once

#include <optional>
#include <string>

#include "comm/exchange/exchange_settings.h"
#include "runtime/base/types.h"

namespace moesaic {

enum class QkNorm : std::uint8_t {
    none,
    full,  ///< RMSNorm over the whole projected vector (OLMoE)
    head,  ///< RMSNorm over each head (Qwen3)
};

/// What a router's weights are: a softmax over all experts, or one over the chosen experts' logits.
enum class RouterScore : std::uint8_t { softmax, softmax_over_top_k };

/// The tokens whose balance one auxiliary loss measures.
enum class BalanceScope : std::uint8_t { sequence, micro, global };

struct RouterSpec {
    std::string kind = "top_k";  ///< a name of the table in layers/routers/table.cpp
    RouterScore score = RouterScore::softmax;
    bool normalize = true;  ///< weights divided by their sum (score softmax only)
};

struct BalanceSpec {
    double aux = 0.01;  ///< coefficient of the load-balance loss, convention megatron: 1 at perfect balance
    double z = 0.001;   ///< coefficient of the mean squared logsumexp of the router's logits
    BalanceScope scope = BalanceScope::micro;
};

struct ModelSpec {
    i64 vocabulary = 256;
    i64 width = 128;
    int layers = 4;
    i64 heads = 4, kv_heads = 4, head_dim = 32;
    QkNorm qk_norm = QkNorm::none;
    double norm_eps = 1e-5;
    double rope_theta = 10000;
    double init_std = 0.02;
    std::optional<double> clip_qkv;  ///< q, k and v are clamped to +- this
    i64 dense_hidden = 512;          ///< width of the feed-forward in layers without experts
    bool tie_embeddings = false;

    i64 experts = 8;  ///< of a layer; 0: no layer has any
    i64 top_k = 2;
    i64 hidden = 256;  ///< F, width of one expert
    int every = 1;     ///< layer i has experts where (i + 1) % every == 0
    RouterSpec router;
    BalanceSpec balance;

    i64 seq_len = 256;
    i64 micro_sequences = 4;      ///< sequences of a micro-batch, at most
    i64 chunks = 1;               ///< in which a micro-batch's rows travel, at the mean load
    double receive_budget = 2.0;  ///< rows received at once, as a multiple of the mean
    ExchangeSettings exchange;
    bool recompute = false;  ///< blocks keep their input alone and compute forward again in the backward

    [[nodiscard]] bool has_experts(int layer) const { return experts > 0 && (layer + 1) % every == 0; }
    [[nodiscard]] int expert_layers() const { return experts > 0 ? layers / every : 0; }
    [[nodiscard]] i64 micro_tokens() const { return micro_sequences * seq_len; }
};

}  // namespace moesaic
