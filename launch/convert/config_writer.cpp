#include "launch/convert/config_writer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/config/load.h"

namespace moesaic {

namespace {

using nlohmann::ordered_json;

/// What the checks below look at, and what only training reads. Any other key of the model must have its
/// default: an option that this export does not know may change what the model computes.
constexpr const char* kKnownKeys[] = {"model.vocabulary",
                                      "model.width",
                                      "model.layers",
                                      "model.heads",
                                      "model.kv_heads",
                                      "model.head_dim",
                                      "model.qk_norm",
                                      "model.norm_eps",
                                      "model.rope_theta",
                                      "model.init_std",
                                      "model.clip_qkv",
                                      "model.dense_hidden",
                                      "model.tie_embeddings",
                                      "model.moe.experts",
                                      "model.moe.top_k",
                                      "model.moe.hidden",
                                      "model.moe.every",
                                      "model.moe.router.score",
                                      "model.moe.router.normalize",
                                      "model.moe.balance."};

bool known(const std::string& key) {
    return std::ranges::any_of(kKnownKeys, [&](std::string_view one) {
        return key == one || (one.ends_with('.') && key.starts_with(one));
    });
}

void add_unknown(const Config& config, std::vector<std::string>& list) {
    const Config untouched;
    const std::map<std::string, std::string> defaults = flatten(untouched);
    const bool dense = config.model.moe.experts == 0;
    for (const auto& [key, value] : flatten(config)) {
        if (!key.starts_with("model.") || known(key) || (dense && key.starts_with("model.moe."))) continue;
        const auto found = defaults.find(key);
        if (found == defaults.end() || found->second != value)
            list.push_back(fmt::format("{}: {} (it has {})", key, value,
                                       found == defaults.end() ? "no such option" : found->second));
    }
}

struct Wanted {
    const char* qk_norm;
    bool experts, dense_layers, clip, free_head_dim, unnormalized;
};

Wanted wanted(Family family) {
    switch (family) {
        case Family::mixtral:
            return {"none", true, false, false, true, false};
        case Family::olmoe:
            return {"full", true, false, true, false, true};
        case Family::qwen3_moe:
            return {"head", true, true, false, true, true};
        default:
            return {"none", false, false, false, true, true};
    }
}

ordered_json special_tokens(const std::string& imported_config, const ModelSpec& spec) {
    ordered_json kept{{"max_position_embeddings", spec.seq_len},
                      {"bos_token_id", nullptr},
                      {"eos_token_id", nullptr},
                      {"pad_token_id", nullptr}};
    if (imported_config.empty()) return kept;
    std::ifstream stream(imported_config);
    const ordered_json imported = ordered_json::parse(stream, nullptr, false);
    if (!imported.is_object()) throw UserError(imported_config + ": is not JSON; remove it to go without");
    for (const auto& [key, value] : imported.items()) {
        if (!kept.contains(key)) continue;
        if (key != "max_position_embeddings") {
            kept[key] = value;
        } else if (value.is_number_integer()) {
            kept[key] = std::max(value.get<i64>(), spec.seq_len);
        }
    }
    return kept;
}

}  // namespace

std::vector<std::string> obstacles(Family family, const Config& config, const ModelSpec& spec) {
    const Wanted has = wanted(family);
    const ModelConfig& model = config.model;
    std::vector<std::string> list;
    const auto check = [&](bool fits, const char* key, const auto& value, const char* right) {
        if (!fits) list.push_back(fmt::format("{}: {} (it has {})", key, value, right));
    };
    check((spec.experts > 0) == has.experts, "model.moe.experts", spec.experts,
          has.experts ? "experts" : "none: 0");
    check(model.qk_norm == has.qk_norm, "model.qk_norm", model.qk_norm, has.qk_norm);
    if (spec.experts == 0) {  // of other models add_unknown() says it
        check(spec.activation == ActivationKind::swiglu, "model.moe.activation", model.moe.activation,
              "swiglu");
    }
    check(!spec.clip_qkv || has.clip, "model.clip_qkv", spec.clip_qkv.value_or(0), "none");
    check(has.free_head_dim || spec.head_dim * spec.heads == spec.width, "model.head_dim", spec.head_dim,
          "width / heads");
    if (has.experts && spec.experts > 0) {
        check(spec.expert_layers() == spec.layers || has.dense_layers, "model.moe.every", spec.every, "1");
        const bool normalized = spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k;
        check(normalized || has.unnormalized, "model.moe.router.normalize", normalized, "true");
        check(spec.router.score != RouterScore::sigmoid, "model.moe.router.score", "sigmoid", "softmax");
    }
    add_unknown(config, list);
    return list;
}

Family choose_family(const Config& config, const ModelSpec& spec, const std::string& model) {
    std::string text = model + ": no class of Hugging Face has these options:";
    for (const FamilyEntry& entry : family_table()) {
        const std::vector<std::string> list = obstacles(entry.family, config, spec);
        if (list.empty()) return entry.family;
        text += fmt::format("\n  {}: {}", entry.architecture, fmt::join(list, "; "));
    }
    throw UserError(text);
}

std::string huggingface_config(Family family, const ModelSpec& spec, bool brain_float,
                               const std::string& imported_config) {
    const FamilyEntry& entry = family_entry(family);
    ordered_json json{{"architectures", {entry.architecture}},
                      {"model_type", entry.model_type},
                      {"vocab_size", spec.vocabulary},
                      {"hidden_size", spec.width},
                      {"num_hidden_layers", spec.layers},
                      {"num_attention_heads", spec.heads},
                      {"num_key_value_heads", spec.kv_heads},
                      {"head_dim", spec.head_dim},
                      {"hidden_act", "silu"},
                      {"intermediate_size",
                       wanted(family).dense_layers || spec.experts == 0 ? spec.dense_hidden : spec.hidden},
                      {"rms_norm_eps", spec.norm_eps},
                      {"rope_theta", spec.rope_theta},
                      {"initializer_range", spec.init_std},
                      {"tie_word_embeddings", spec.tie_embeddings},
                      {"attention_bias", false},
                      {"attention_dropout", 0.0}};
    if (spec.experts > 0) {
        json["num_experts_per_tok"] = spec.top_k;
        json[family == Family::mixtral ? "num_local_experts" : "num_experts"] = spec.experts;
        if (family != Family::mixtral) {
            json["norm_topk_prob"] =
                spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k;
        }
        json["output_router_logits"] = false;
    }
    if (family == Family::mixtral) {
        json["sliding_window"] = nullptr;
        json["router_jitter_noise"] = 0.0;
    }
    if (family == Family::olmoe) {
        json.erase("head_dim");
        json["clip_qkv"] = spec.clip_qkv ? ordered_json(*spec.clip_qkv) : ordered_json();
    }
    if (family == Family::qwen3_moe) {
        json["moe_intermediate_size"] = spec.hidden;
        json["decoder_sparse_step"] = spec.every;
        json["mlp_only_layers"] = ordered_json::array();
        json["use_sliding_window"] = false;
        json["sliding_window"] = nullptr;
    }
    if (family == Family::llama) json["mlp_bias"] = false;
    json.update(special_tokens(imported_config, spec));
    json["torch_dtype"] = brain_float ? "bfloat16" : "float32";
    return json.dump(2) + "\n";
}

}  // namespace moesaic
