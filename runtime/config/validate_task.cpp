#include "runtime/config/validate_task.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "runtime/config/validate_router.h"

namespace moesaic {

namespace {

const Choices kTables{"classification", "regression"};

/// What model learns which task.
struct TaskModels {
    const char* task;
    Choices models;
};

void check_model_of_task(LoadedConfig& loaded) {
    static const std::vector<TaskModels> kModels{{"lm", {"transformer"}},
                                                 {"classification", {"mlp", "momlp"}},
                                                 {"regression", {"mlp", "momlp"}},
                                                 {"sraven", {"transformer"}},
                                                 {"skills", {"transformer"}}};
    const Config& config = loaded.config;
    for (const TaskModels& one : kModels) {
        if (config.task.kind != one.task || is_one_of(config.model.kind, one.models)) continue;
        loaded.complain("model.kind",
                        fmt::format("a {} does not learn task.kind {}", config.model.kind, one.task),
                        fmt::format("one of: {}", fmt::join(one.models, ", ")));
    }
}

/// A key, or a section, that means something for some kinds only.
struct KindKeys {
    const char* key;
    Choices kinds;
};

/// Whoever sets such a key for another kind expects an effect that it would not have.
void check_keys(LoadedConfig& loaded, const char* kind_key, const std::string& kind,
                const std::vector<KindKeys>& table) {
    const auto fresh = std::make_unique<Config>();  // on the stack GCC 12 takes a text for uninitialised
    const std::map<std::string, std::string> values = flatten(loaded.config), defaults = flatten(*fresh);
    for (const KindKeys& one : table) {
        if (is_one_of(kind, one.kinds)) continue;
        for (const auto& [key, value] : values) {
            const bool meant = key == one.key || key.starts_with(std::string(one.key) + ".");
            const auto untouched = defaults.find(key);
            if (!meant || (untouched != defaults.end() && untouched->second == value)) continue;
            loaded.complain(key, fmt::format("has no meaning for {} {}", kind_key, kind),
                            fmt::format("leave it out, or one of the kinds {}", fmt::join(one.kinds, ", ")));
        }
    }
}

void check_keys_of_kinds(LoadedConfig& loaded) {
    static const std::vector<KindKeys> kTaskKeys{
        {"task.data.sources", {"lm"}},
        {"task.data.tokenizer", {"lm"}},
        {"task.data.vocabulary", {"lm"}},
        {"task.data.text_key", {"lm"}},
        {"task.data.token_type", {"lm"}},
        {"task.data.end_of_document", {"lm"}},
        {"task.data.document_mask", {"lm"}},
        {"generalization.unit", {"lm"}},
        {"task.data.seq_len", {"lm"}},
        {"task.data.target", kTables},
        {"task.data.features", kTables},
        {"task.data.labels", kTables},
        {"task.data.standardize", kTables},
        {"task.data.random_labels", {"classification"}},
        {"task.data.split_seed", {"classification", "regression", "sraven", "skills"}},
        {"task.data.function", kTables},
        {"task.data.dimensions", kTables},
        {"task.data.noise", kTables},
        {"task.data.samples", {"classification", "regression", "sraven", "skills"}},
        {"task.sraven", {"sraven"}},
        {"task.skills", {"skills"}}};
    static const std::vector<KindKeys> kModelKeys{{"model.heads", {"transformer"}},
                                                  {"model.kv_heads", {"transformer"}},
                                                  {"model.head_dim", {"transformer"}},
                                                  {"model.qk_norm", {"transformer"}},
                                                  {"model.rope_theta", {"transformer"}},
                                                  {"model.clip_qkv", {"transformer"}},
                                                  {"model.vocabulary", {"transformer"}},
                                                  {"model.tie_embeddings", {"transformer"}},
                                                  {"model.residual", {"mlp"}},
                                                  {"model.branches", {"momlp"}},
                                                  {"model.prototypes", {"momlp"}},
                                                  {"model.moe.router", {"transformer", "mlp"}},
                                                  {"model.moe.capacity", {"transformer", "mlp"}},
                                                  {"model.moe.hidden", {"transformer", "mlp"}},
                                                  {"model.moe.shared_experts", {"transformer", "mlp"}},
                                                  {"model.init_std", {"transformer", "mlp"}},
                                                  {"parallel.expert", {"transformer", "mlp"}},
                                                  {"parallel.expert_tensor", {"transformer", "mlp"}},
                                                  {"train.recompute", {"transformer", "mlp"}},
                                                  {"metrics.record_routing", {"transformer", "mlp"}}};
    check_keys(loaded, "task.kind", loaded.config.task.kind, kTaskKeys);
    check_keys(loaded, "model.kind", loaded.config.model.kind, kModelKeys);
}

void check_format(LoadedConfig& loaded) {
    const TaskConfig& task = loaded.config.task;
    const Choices formats = is_one_of(task.kind, kTables)
                                ? Choices{"auto", "csv", "npy", "idx"}
                                : Choices{"auto", "text", "jsonl", "bin", "megatron", "npy"};
    if (!is_one_of(task.data.format, formats))
        loaded.complain(
            "task.data.format",
            fmt::format("'{}' is no format of data for task.kind {}", task.data.format, task.kind),
            fmt::format("one of: {}", fmt::join(formats, ", ")));
    if (task.data.function == "none") return;
    if (loaded.where.contains("task.data.path"))
        loaded.complain("task.data.path", "stands beside task.data.function", "keep one of the two");
    const bool classes = task.data.function == "teacher";
    if (is_one_of(task.kind, kTables) && classes != (task.kind == "classification"))
        loaded.complain(
            "task.data.function",
            fmt::format("{} gives {}", task.data.function, classes ? "classes" : "values"),
            classes ? "task.kind: classification" : "task.kind: regression, or function: teacher");
    if (classes && task.data.noise > 1)
        loaded.complain("task.data.noise", fmt::format("{} is no share of labels", task.data.noise),
                        "from 0 to 1");
}

/// A row of a table is a sequence of its own: what goes by sequences would go by single rows.
void check_rows(LoadedConfig& loaded) {
    const MoeConfig& moe = loaded.config.model.moe;
    if (loaded.config.model.kind != "mlp" || moe.experts == 0) return;
    const RouterConfig& router = moe.router;
    if (is_one_of(router.kind, {"hash", "expert_choice"}))
        loaded.complain("model.moe.router.kind",
                        router.kind == "hash"
                            ? "a hash router goes by token ids, and features have none"
                            : "experts choose among the rows of a sequence, and an example is one",
                        "another kind, e.g. top_k");
    const auto by_sequence = [&](bool so, const char* key) {
        if (so) loaded.complain(key, "an example is a sequence of one row", "micro");
    };
    by_sequence(router.kind == "sinkhorn" && router.sinkhorn_scope == "sequence",
                "model.moe.router.sinkhorn_scope");
    by_sequence(moe.balance.scope == "sequence", "model.moe.balance.scope");
    by_sequence(!moe.capacity.dropless && moe.capacity.per == "sequence", "model.moe.capacity.per");
}

/// What only the sizes of a MoMLP can be.
void check_cells(LoadedConfig& loaded) {
    const Config& config = loaded.config;
    if (config.model.kind != "momlp") return;
    const i64 cells = config.model.moe.experts;
    if (cells < 1) {
        loaded.complain("model.moe.experts", "a momlp without cells is no model", "1 or more");
    } else if (config.train.batch_sequences % cells != 0) {
        loaded.complain("train.batch_sequences",
                        fmt::format("{} examples are not as many of each of {} cells",
                                    config.train.batch_sequences, cells),
                        "a multiple of model.moe.experts");
    }
    if (config.task.data.training_share < 1)
        loaded.complain("task.data.training_share", "a momlp's cells are made of all training examples", "1");
    if (activation_halves(activation_kind(config.model.moe.activation)) != 1)
        loaded.complain("model.moe.activation",
                        fmt::format("{} is gated, and a momlp's units are not", config.model.moe.activation),
                        "relu, prelu or gelu");
}

/// Held-out combinations have to be some.
void check_combinations(LoadedConfig& loaded) {
    const SkillsConfig& skills = loaded.config.task.skills;
    if (loaded.config.task.kind == "skills" && skills.held_out > 0 && skills.combined < 2)
        loaded.complain(
            "task.skills.combined",
            "a combination of one skill is the skill: held out, it would be met for the first time",
            "2 or more, or held_out: 0");
    const SravenConfig& sraven = loaded.config.task.sraven;
    if (loaded.config.task.kind != "sraven" || sraven.held_out == 0 || sraven.features > 1) return;
    loaded.complain("task.sraven.features",
                    "a combination of one rule is the rule: held out, it would be met for the first time",
                    "2 or more, or held_out: 0");
}

}  // namespace

void check_task(LoadedConfig& loaded) {
    check_model_of_task(loaded);
    check_keys_of_kinds(loaded);
    check_format(loaded);
    check_rows(loaded);
    check_cells(loaded);
    check_combinations(loaded);
}

}  // namespace moesaic
