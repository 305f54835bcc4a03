#include "launch/convert/config_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "launch/convert/json_document.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr Limits kWide{1, 1e12};
constexpr Limits kEpsilon{0, 1};

/// Keys without effect on what a model computes, between spaces: book-keeping, training of Hugging Face's
/// own, and the settings of text generation that old versions kept here.
constexpr std::string_view kKeysWithoutEffect =
    " _attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled _name_or_path "
    "attn_implementation bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward "
    "cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping "
    "encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task "
    "forced_bos_token_id forced_eos_token_id id2label is_decoder label2id length_penalty max_length "
    "max_window_layers min_length model_type no_repeat_ngram_size num_beam_groups num_beams "
    "num_return_sequences output_attentions output_hidden_states output_router_logits output_scores "
    "pad_token_id prefix pretraining_tp problem_type remove_invalid_values repetition_penalty return_dict "
    "return_dict_in_generate router_aux_loss_coef sep_token_id suppress_tokens task_specific_params "
    "temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript "
    "transformers_version typical_p unk_token_id use_bfloat16 use_cache ";

std::string architectures() {
    std::vector<std::string> names;
    for (const FamilyEntry& entry : family_table()) names.emplace_back(entry.architecture);
    return fmt::format("{}", fmt::join(names, ", "));
}

/// The family, or a UserError: without it no other key has a meaning.
Family read_family(JsonDocument& json) {
    const std::vector<std::string> classes = json.texts("architectures");
    const std::string type = json.text("model_type").value_or("");
    for (const FamilyEntry& entry : family_table()) {
        const bool by_class = classes.size() == 1 && classes[0] == entry.architecture;
        const bool by_type = classes.empty() && type == entry.model_type;
        if ((by_class && (type.empty() || type == entry.model_type)) || by_type) return entry.family;
    }
    json.complain("architectures",
                  fmt::format("{} with model_type {} is no class that Moesaic reads",
                              json.shown("architectures"), json.shown("model_type")),
                  "one of: " + architectures());
    throw UserError(json.diagnostics().text());
}

class Reader {
  public:
    Reader(JsonDocument& json, ImportedConfig& result) : json_(json), result_(result) {}

    void read() {
        read_sizes();
        read_heads();
        read_numbers();
        switch (result_.family) {
            case Family::mixtral:
                read_mixtral();
                break;
            case Family::olmoe:
                read_olmoe();
                break;
            case Family::qwen3_moe:
                read_qwen3_moe();
                break;
            case Family::llama:
                read_llama();
        }
        refuse_unsupported();
        refuse_rotary_variants();
        refuse_windows();
        for (const std::string& key : json_.unread()) {
            if (kKeysWithoutEffect.find(fmt::format(" {} ", key)) != std::string_view::npos) continue;
            result_.warnings.push_back(
                fmt::format("{}: {}: this key is not known and was ignored", json_.where(key), key));
        }
    }

  private:
    JsonDocument& json_;
    ImportedConfig& result_;
    ModelConfig& model_ = result_.model;

    i64 needed(const std::string& key, const Limits& limits = kSize) {
        if (!json_.has(key)) json_.complain(key, "is missing", "a whole number");
        return json_.whole(key, limits).value_or(1);
    }

    void read_sizes() {
        model_.vocabulary = needed("vocab_size");
        model_.width = needed("hidden_size");
        model_.layers = needed("num_hidden_layers", {1, 100000});
        result_.max_positions = needed("max_position_embeddings", kWide);
        model_.dense_hidden = needed("intermediate_size");
    }

    void read_heads() {
        model_.heads = needed("num_attention_heads");
        // The classes' own defaults: as many as query heads, but for the two that were born with fewer.
        const bool grouped = result_.family == Family::mixtral || result_.family == Family::qwen3_moe;
        if (grouped && !json_.has("num_key_value_heads") && !json_.null("num_key_value_heads"))
            json_.complain("num_key_value_heads", "is missing", "a whole number");
        model_.kv_heads = json_.whole("num_key_value_heads", kSize).value_or(model_.heads);
        if (model_.heads % model_.kv_heads != 0)
            json_.complain("num_key_value_heads",
                           fmt::format("{} do not divide {} heads", model_.kv_heads, model_.heads),
                           "a divisor of num_attention_heads");
        model_.head_dim = json_.whole("head_dim", kSize);
        if (!model_.head_dim && model_.width % model_.heads != 0) {
            json_.complain("num_attention_heads",
                           fmt::format("{} heads do not divide hidden_size {}", model_.heads, model_.width),
                           "a divisor, or head_dim");
        } else if (const i64 width = model_.head_dim.value_or(model_.width / model_.heads); width % 2 != 0) {
            json_.complain("head_dim", fmt::format("a head of width {} cannot be rotated in pairs", width),
                           "an even width of a head");
        }
    }

    void read_numbers() {
        const bool small_eps = result_.family == Family::qwen3_moe || result_.family == Family::llama;
        const double theta = result_.family == Family::mixtral ? 1e6 : 1e4;
        model_.norm_eps = json_.number("rms_norm_eps", kEpsilon).value_or(small_eps ? 1e-6 : 1e-5);
        model_.rope_theta = json_.number("rope_theta", kWide).value_or(theta);
        if (const auto inner = json_.number("rope_parameters.rope_theta", kWide)) model_.rope_theta = *inner;
        model_.init_std = json_.number("initializer_range", {0, 100}).value_or(0.02);
        model_.tie_embeddings = json_.flag("tie_word_embeddings").value_or(false);
    }

    /// Experts and choices of a sparse model.
    void read_experts(const char* experts_key, bool normalize) {
        const char* const other = result_.family == Family::mixtral ? "num_experts" : "num_local_experts";
        const bool renamed = !json_.has(experts_key) && json_.has(other);
        model_.moe.experts = needed(renamed ? other : experts_key, {0, 65536});
        model_.moe.top_k = needed("num_experts_per_tok", {1, 65536});
        if (model_.moe.experts > 0 && model_.moe.top_k > model_.moe.experts)
            json_.complain(
                "num_experts_per_tok",
                fmt::format("a token cannot visit {} of {} experts", model_.moe.top_k, model_.moe.experts),
                "at most the number of experts");
        model_.moe.router.normalize = normalize;
        if (normalize && model_.moe.top_k == 1)
            result_.warnings.push_back(fmt::format(
                "{}: num_experts_per_tok: with one expert of weight 1 the router's gradient is zero: this "
                "model can be evaluated, not trained",
                json_.where("num_experts_per_tok")));
        if (result_.family != Family::mixtral) return;
        model_.moe.hidden = model_.dense_hidden;
    }

    void read_mixtral() {
        read_experts("num_local_experts", true);
        if (model_.moe.experts == 0)
            json_.complain("num_local_experts", "0 experts are no Mixtral", "a whole number, at least 1");
    }

    void read_olmoe() {
        read_experts("num_experts", json_.flag("norm_topk_prob").value_or(false));
        model_.moe.hidden = model_.dense_hidden;
        model_.qk_norm = "full";
        if (json_.has("clip_qkv")) model_.clip_qkv = json_.number("clip_qkv", {1e-6, 1e9});
        if (model_.head_dim && *model_.head_dim * model_.heads != model_.width)
            json_.complain("head_dim", "this class computes with hidden_size / num_attention_heads",
                           fmt::format("{}", model_.width / model_.heads));
    }

    void read_qwen3_moe() {
        read_experts("num_experts", json_.flag("norm_topk_prob").value_or(false));
        model_.moe.hidden = needed("moe_intermediate_size");
        model_.qk_norm = "head";
        const i64 step = json_.whole("decoder_sparse_step", {1, 1e6}).value_or(1);
        const std::vector<i64> listed = json_.wholes("mlp_only_layers");
        const std::set<i64> dense(listed.begin(), listed.end());
        std::vector<i64> sparse;
        for (i64 layer = 0; layer < model_.layers && model_.moe.experts > 0; ++layer)
            if ((layer + 1) % step == 0 && !dense.contains(layer)) sparse.push_back(layer);
        if (sparse.empty()) {
            model_.moe.experts = 0;
            return;
        }
        model_.moe.every = sparse.front() + 1;
        bool regular = static_cast<i64>(sparse.size()) == model_.layers / model_.moe.every;
        for (const i64 layer : sparse) regular = regular && (layer + 1) % model_.moe.every == 0;
        if (regular) return;
        if (sparse.size() > 8) sparse.resize(8);
        json_.complain(
            "mlp_only_layers",
            fmt::format("experts in layers {}{} are no regular pattern", fmt::join(sparse, ", "),
                        sparse.size() == 8 ? ", ..." : ""),
            "experts in every n-th layer, counted from the first: n-1, 2n-1, ... (model.moe.every)");
    }

    void read_llama() {
        model_.moe.experts = 0;
        refuse_true("mlp_bias", "a feed-forward with biases");
    }

    void refuse(const std::string& key, const std::string& what, const std::string& right) {
        json_.complain(key, fmt::format("{} ({}) is not supported", json_.shown(key), what), right);
    }
    void refuse_true(const std::string& key, const std::string& what) {
        if (json_.flag(key).value_or(false)) refuse(key, what, "false");
    }

    void refuse_unsupported() {
        const std::string act = json_.text("hidden_act").value_or("silu");
        if (act != "silu" && act != "swish")
            refuse("hidden_act", "the activation of the feed-forward", "silu");
        refuse_true("attention_bias", "projections with biases");
        refuse_true("is_encoder_decoder", "an encoder");
        refuse_true("add_cross_attention", "cross-attention");
        for (const char* key :
             {"attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "router_jitter_noise"}) {
            if (json_.number(key, {0, 1e9}).value_or(0) != 0)
                refuse(key, "noise in training", "0, if you can do without");
        }
        if (!json_.empty("quantization_config"))
            refuse("quantization_config", "quantised weights", "the model before it was quantised");
        if (!json_.empty("auto_map"))
            refuse("auto_map", "code that comes with the model", "a model of one of: " + architectures());
        if (!json_.empty("pruned_heads")) refuse("pruned_heads", "removed heads", "{}");
    }

    void refuse_rotary_variants() {
        for (const std::string key : {"rope_scaling", "rope_parameters"}) {
            if (json_.empty(key)) continue;
            if (!json_.object(key)) {
                refuse(key, "scaled rotary positions", "null");
                continue;
            }
            const bool old_name = !json_.has(key + ".rope_type");
            const std::string kind = json_.text(key + (old_name ? ".type" : ".rope_type")).value_or("");
            if (kind != "default") refuse(key, "scaled rotary positions", "null, or rope_type default");
        }
        for (const std::string key : {"partial_rotary_factor", "rope_parameters.partial_rotary_factor"}) {
            if (json_.number(key, {0, 1}).value_or(1) != 1)
                refuse(key, "rotary positions on a part of a head", "1.0");
        }
    }

    void refuse_windows() {
        const bool switched = result_.family == Family::qwen3_moe || json_.has("use_sliding_window");
        const bool used = !switched || json_.flag("use_sliding_window").value_or(false);
        const i64 from_layer = switched ? json_.whole("max_window_layers", kNotNegative).value_or(0) : 0;
        const auto window = json_.whole("sliding_window", kWide);
        // A window as long as the longest sequence hides nothing.
        if (window && used && *window < result_.max_positions && from_layer < model_.layers)
            refuse("sliding_window", "attention within a window", "null");
        for (const std::string& kind : json_.texts("layer_types")) {
            if (kind == "full_attention") continue;
            refuse("layer_types", "layers with other than full attention", "full_attention in all layers");
            break;
        }
    }
};

}  // namespace

ImportedConfig read_huggingface_config(const std::string& path) {
    JsonDocument json(path);
    ImportedConfig result;
    result.family = read_family(json);
    Reader(json, result).read();
    json.diagnostics().sort_by_line();
    json.diagnostics().throw_if_any();
    return result;
}

}  // namespace moesaic
