// The complete configuration of a run: plain structs, each listing its fields once.
#pragma once

#include <optional>

#include "runtime/activation.h"
#include "runtime/config/alarm_config.h"
#include "runtime/config/placement_config.h"
#include "runtime/config/router_config.h"
#include "runtime/config/task_config.h"

namespace moesaic {

// A visitor is called per field: section(name, struct), value(name, field, limits, help) for numbers,
// value(name, field, help) for texts, switches and lists, choice(name, text, choices, help), and value(name,
// optional, word, limits, help), where `word` ("auto", "none") stands for an empty optional; sections(name,
// vector of structs, help) for a list of mappings; value_unless(absent, name, text, help) for a text that
// another key replaces. Reading, unknown keys, ranges, --set, printing and the reference table all follow
// from these lists.

struct RunConfig {
    std::string name = "run";
    i64 seed = 1;
    std::string out = "runs";
    std::string device = "auto";
    bool operator==(const RunConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("name", name, "Folder of the run below `out`");
        v.value("seed", seed, kNotNegative, "Initial weights and the order of the data follow from it");
        v.value("out", out, "Folder that holds run folders");
        v.choice("device", device, {"auto", "cpu", "cuda"}, "Where to compute");
    }
};

struct ParallelConfig {
    std::optional<i64> expert;
    i64 zero = 1;
    std::string comm = "auto", exchange = "auto", dedup_reduce = "exact", wire = "auto";
    std::optional<i64> ranks_per_node, chunks;
    PlacementConfig placement;
    double receive_budget = 2.0;
    i64 expert_tensor = 1, tensor = 1, pipeline = 1, context = 1;
    double timeout_seconds = 600;
    bool checksums = false;
    i64 bucket_bytes = i64{4} << 20;
    bool operator==(const ParallelConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("expert", expert, "auto", kPositive,
                "Expert-parallel ranks; auto: the largest divisor of the experts that fits a node");
        v.value("zero", zero, {0, 1},
                "1: optimizer state sharded over the ranks that hold the same parameters");
        v.choice("comm", comm, {"auto", "mpi", "nccl"}, "Transport between processes");
        v.choice("exchange", exchange, {"auto", "flat", "hierarchical", "dedup", "shared_memory"},
                 "How rows cross the wire; auto: the fastest at start-up of those that give the same bits");
        v.choice("dedup_reduce", dedup_reduce, {"exact", "node"},
                 "dedup's way back: every choice's row, or their sum over a node (not the same bits)");
        v.choice("wire", wire, {"auto", "fp32", "bf16"}, "Type of rows on the wire; auto: the model's");
        v.value("ranks_per_node", ranks_per_node, "auto", {1, 1e6},
                "Consecutive ranks that count as one node; auto: as the machines are");
        v.value("chunks", chunks, "auto", {1, 64},
                "Parts in which rows travel while experts compute on others, no more than a rank has "
                "experts (or, where it has one and no copies, than ranks share them); auto: 1");
        v.section("placement", placement);
        v.value("receive_budget", receive_budget, {0.01, 1e6},
                "Rows received at once, as a multiple of the mean");
        v.value("expert_tensor", expert_tensor, kPositive,
                "Ranks that share the width of each expert; divides model.moe.hidden");
        v.value("tensor", tensor, kPositive, "Reserved axis");
        v.value("pipeline", pipeline, kPositive, "Reserved axis");
        v.value("context", context, kPositive, "Reserved axis");
        v.value("timeout_seconds", timeout_seconds, {0.1, 1e7},
                "A collective that takes longer ends the run");
        v.value("checksums", checksums,
                "Rows between ranks travel with checksums: a bit that flips on the way ends the run");
        v.value("bucket_bytes", bucket_bytes, kPositive,
                "Gradients are summed in buckets of about this size");
    }
};

struct BalanceConfig {
    double aux = 0.01;
    std::string convention = "megatron", scope = "micro";
    double z = 0.001, importance = 0, load = 0;
    bool operator==(const BalanceConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("aux", aux, kNotNegative, "Coefficient of the load-balance loss");
        v.choice("convention", convention, {"megatron", "gshard", "hf", "switch"},
                 "Definition of the load-balance loss");
        v.choice("scope", scope, {"sequence", "micro", "global"}, "Tokens over which balance is measured");
        v.value("z", z, kNotNegative, "Coefficient of the router z-loss");
        v.value("importance", importance, kNotNegative,
                "Coefficient of the squared variation of the experts' summed weights");
        v.value("load", load, kNotNegative,
                "Coefficient of the squared variation of the experts' expected loads");
    }
};

struct CapacityConfig {
    bool dropless = true;
    double factor = 1.25;
    std::string policy = "probability", rounding = "ceil", per = "sequence";
    bool renormalize = false, pad = false;
    bool operator==(const CapacityConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("factor", factor, {0.01, 1e6}, "Rows that an expert takes, as a multiple of the mean");
        v.choice("policy", policy, {"probability", "position"}, "Which choices stay when an expert is full");
        v.choice("rounding", rounding, {"ceil", "floor", "tutel", "fastmoe", "colossalai", "olmo"},
                 "Whose rule makes whole rows of it");
        v.choice("per", per, {"sequence", "micro"}, "Tokens among which rows are counted and dropped");
        v.value("renormalize", renormalize,
                "Weights of a token's kept choices sum to what all its choices' did");
        v.value("pad", pad, "Experts compute on zero rows up to their capacity; changes no result");
    }
};

inline Choices activation_names() {
    Choices names;
    for (const ActivationEntry& entry : kActivations) names.emplace_back(entry.name);
    return names;
}

/// A layer's experts and what chooses among them.
struct MoeConfig {
    i64 experts = 8, top_k = 2, hidden = 256;
    std::string activation = "swiglu";
    i64 every = 1, shared_experts = 0;
    bool shared_gate = false;
    RouterConfig router;
    BalanceConfig balance;
    CapacityConfig capacity;
    /// Weights of the chosen are divided by their sum. Experts that choose tokens have no such sum.
    [[nodiscard]] bool normalized() const {
        return router.normalize.value_or(top_k > 1 && router.kind != "expert_choice");
    }
    bool operator==(const MoeConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("experts", experts, {0, 65536}, "Experts of a layer; 0: a dense model");
        v.value("top_k", top_k, {1, 65536}, "Experts that a token visits");
        v.value("hidden", hidden, kSize, "Width of one expert");
        v.choice(
            "activation", activation, activation_names(),
            "Of experts and of feed-forwards without; swiglu has a gate, gelu is the exact one (erf), prelu "
            "learns a slope per expert");
        v.value("every", every, kPositive, "Every n-th layer has experts");
        v.value("shared_experts", shared_experts, {0, 65536},
                "Experts that every token visits besides; one feed-forward of so many times `hidden`");
        v.value("shared_gate", shared_gate,
                "The shared experts' result is multiplied by sigmoid(x · w) (Qwen2-MoE)");
        v.section("router", router);
        v.section("balance", balance);
        v.section_or_word("capacity", capacity, capacity.dropless, "dropless",
                          "Most rows of an expert, or dropless");
    }
};

struct ModelConfig {
    std::string kind = "transformer";
    std::optional<i64> vocabulary;
    i64 width = 128, layers = 4, heads = 4, kv_heads = 4;
    std::optional<i64> head_dim;
    std::string qk_norm = "none";
    double norm_eps = 1e-5, rope_theta = 10000, init_std = 0.02;
    std::optional<double> clip_qkv;
    i64 dense_hidden = 512;
    bool tie_embeddings = false, residual = true;
    i64 branches = 2;
    std::string prototypes = "k_means";
    MoeConfig moe;
    bool operator==(const ModelConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choice("kind", kind, {"transformer", "mlp", "momlp"},
                 "mlp: feed-forwards alone, for rows of a table; momlp: an MLP for each cell of the inputs");
        v.value("vocabulary", vocabulary, "auto", kSize,
                "Rows of the embedding table, at least the tokenizer's ids; auto: as many as those");
        v.value("width", width, kSize, "Width of the residual stream; momlp: of an expert's hidden layers");
        v.value("layers", layers, {1, 100000}, "Blocks; momlp: hidden layers of an expert");
        v.value("heads", heads, kSize, "Query heads");
        v.value("kv_heads", kv_heads, kSize, "Key and value heads");
        v.value("head_dim", head_dim, "auto", kSize, "Width of a head; auto: width / heads");
        v.choice("qk_norm", qk_norm, {"none", "full", "head"},
                 "RMSNorm of queries and keys: over all (OLMoE) or per head (Qwen3)");
        v.value("norm_eps", norm_eps, {0, 1}, "Added to the mean square in RMSNorm");
        v.value("rope_theta", rope_theta, {1, 1e12}, "Base of the rotary position embedding");
        v.value("init_std", init_std, {0, 100}, "Standard deviation of initial weights");
        v.value("clip_qkv", clip_qkv, "none", {1e-6, 1e9},
                "Queries, keys and values are clamped to +- this (OLMoE)");
        v.value("dense_hidden", dense_hidden, kSize, "Width of the feed-forward in layers without experts");
        v.value("tie_embeddings", tie_embeddings, "The output head is the embedding table");
        v.value("residual", residual,
                "mlp: feed-forwards stand behind a norm and around a residual; false: one feeds the next");
        v.value("branches", branches, {2, 65536}, "momlp: children of a node of the routing tree");
        v.choice("prototypes", prototypes, {"k_means", "farthest_point"},
                 "momlp: how prototypes of cells are chosen among training inputs");
        v.section("moe", moe);
    }
};

struct ScheduleConfig {
    std::string kind = "cosine";
    i64 warmup = 50;
    double floor = 0.1;
    bool operator==(const ScheduleConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choice("kind", kind, {"cosine", "wsd", "constant"}, "Course of the learning rate after warm-up");
        v.value("warmup", warmup, kNotNegative, "Steps of linear warm-up");
        v.value("floor", floor, kShare, "Last learning rate as a share of the highest");
    }
};

struct OptimizerConfig {
    std::string kind = "adamw";
    double lr = 3e-3;
    std::vector<double> betas{0.9, 0.95};
    double eps = 1e-8, weight_decay = 0.1;
    std::optional<double> clip = 1.0;
    ScheduleConfig schedule;
    bool operator==(const OptimizerConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choice("kind", kind, {"adamw"}, "Optimizer");
        v.value("lr", lr, {0, 1e6}, "Highest learning rate");
        v.value("betas", betas, "Decay rates of the two moments");
        v.value("eps", eps, {0, 1}, "Added to the root of the second moment");
        v.value("weight_decay", weight_decay, {0, 1e6}, "Of tensors with two or more axes");
        v.value("clip", clip, "none", {1e-12, 1e12}, "Largest L2 norm of the gradient over all parameters");
        v.section("schedule", schedule);
    }
};

/// What to do about a gradient that is far larger than usual; `off`: nothing.
struct SpikeConfig {
    bool off = true;
    double threshold = 10;
    i64 steps = 50;
    std::string policy = "skip";
    bool operator==(const SpikeConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("threshold", threshold, {1, 1e9},
                "Gradient norm over the median of the last steps, at least");
        v.value("steps", steps, {2, 1e6}, "How many steps the median is taken of");
        v.choice("policy", policy, {"stop", "skip", "rollback"}, "As of `train.nonfinite`");
    }
};

struct TrainConfig {
    i64 steps = 300, batch_sequences = 32, micro_sequences = 4, log_every = 10, eval_every = 100,
        checkpoint_every = 100;
    std::optional<i64> keep_checkpoints;
    bool async_checkpoints = true;
    std::string nonfinite = "stop";
    SpikeConfig spike;
    i64 most_skips = 10;
    std::string precision = "fp32", recompute = "none", determinism = "layout";
    bool operator==(const TrainConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("steps", steps, kNotNegative, "Optimizer steps");
        v.value("batch_sequences", batch_sequences, kSize, "Sequences of the global batch");
        v.value("micro_sequences", micro_sequences, kSize, "Sequences that a rank computes at once");
        v.value("log_every", log_every, kPositive, "Steps between console lines and records");
        v.value("eval_every", eval_every, kPositive, "Steps between evaluations");
        v.value("checkpoint_every", checkpoint_every, kPositive, "Steps between checkpoints");
        v.value("keep_checkpoints", keep_checkpoints, "all", kPositive, "Newest checkpoints to keep");
        v.value(
            "async_checkpoints", async_checkpoints,
            "Checkpoints are written while training goes on; takes a copy of what a rank writes, for good");
        v.choice("nonfinite", nonfinite, {"stop", "skip", "rollback"},
                 "A loss or gradient that is not finite: end; leave out the update; go back to the newest "
                 "checkpoint, the second time without the batches in between");
        v.section_or_word("spike", spike, spike.off, "off", "Gradients far larger than usual");
        v.value("most_skips", most_skips, {0, 1e9},
                "Updates left out, or returns to a checkpoint, on end; one more ends the run");
        v.choice("precision", precision, {"fp32", "bf16", "fp64"}, "Type of weights and activations");
        v.choice("recompute", recompute, {"none", "layer"},
                 "layer: a block keeps its input alone and computes forward again in the backward");
        v.choice("determinism", determinism, {"layout", "elastic"},
                 "elastic: weights are the same bits on any number of ranks; layout: on one layout, always");
    }
};

struct GeneralizationConfig {
    i64 probe_sequences = 64;
    std::optional<i64> heldout_sequences;
    std::string unit = "auto", loss = "all", bounds = "all";
    double delta = 0.05;
    double smoothing = 0.1, margin = 1;
    std::optional<double> clip;
    bool operator==(const GeneralizationConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("probe_sequences", probe_sequences, kSize, "Training sequences of the fixed probe");
        v.value("heldout_sequences", heldout_sequences, "auto", kPositive,
                "Held-out sequences evaluated; auto: all, at most 1024");
        v.choice(
            "unit", unit, {"auto", "document", "sequence"},
            "Of language models: what is drawn independently, and losses are averaged in; auto: the document "
            "where the held-out shard has 64 or more");
        v.value("loss", loss, "Losses that are measured");
        v.value("delta", delta, {1e-12, 0.999}, "1 - confidence of intervals and bounds");
        v.value("smoothing", smoothing, {1e-6, 0.999},
                "Smoothed bits: weight of the uniform prediction that the model's is mixed with");
        v.value("margin", margin, {1e-9, 1e9}, "Ramp loss: margin of the right logit from which on it is 0");
        v.value("clip", clip, "auto", {1e-9, 1e9},
                "Clipped loss: cross-entropy above this counts as this; auto: twice ln(vocabulary)");
        v.value("bounds", bounds, "Bounds that are computed");
    }
};

/// Where Prometheus fetches the newest numbers of a run.
struct PrometheusConfig {
    std::string address = "127.0.0.1";
    i64 port = 9464;
    bool operator==(const PrometheusConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value(
            "address", address,
            "Interface that sink prometheus listens on, by number; 0.0.0.0: all, for anybody who gets there");
        v.value("port", port, {0, 65535}, "0: any that is free; the log says which");
    }
};

struct MetricsConfig {
    std::vector<std::string> sinks{"console", "jsonl", "csv"};
    PrometheusConfig prometheus;
    AlarmsConfig alarms;
    std::string record_routing = "none";
    bool operator==(const MetricsConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choices("sinks", sinks, {"console", "jsonl", "csv", "tensorboard", "prometheus"},
                  "Where numbers go");
        v.section("prometheus", prometheus);
        v.section_or_word("alarms", alarms, alarms.off, "off", "What the run speaks up about; off: nothing");
        v.value("record_routing", record_routing,
                "File for every training step's routing (.npy [steps, layers, tokens, k]), or none");
    }
};

struct CpuConfig {
    std::optional<i64> threads;
    std::string gemm = "own";
    std::string bf16_products = "auto";
    bool operator==(const CpuConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("threads", threads, "auto", {1, 4096}, "Threads of a rank; auto: the cores it may use");
        v.choice("gemm", gemm, {"own", "onednn"},
                 "Who computes fp32 products; with onednn results depend on the layout by rounding");
        v.choice(
            "bf16_products", bf16_products, {"auto", "tiles", "pairs", "widened"},
            "Who sums products of bf16: AMX, AVX512_BF16, multiply-adds of fp32; auto: the quickest here");
    }
};

struct Config {
    RunConfig run;
    ParallelConfig parallel;
    TaskConfig task;
    ModelConfig model;
    OptimizerConfig optimizer;
    TrainConfig train;
    GeneralizationConfig generalization;
    MetricsConfig metrics;
    CpuConfig cpu;
    bool operator==(const Config&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.section("run", run);
        v.section("parallel", parallel);
        v.section("task", task);
        v.section("model", model);
        v.section("optimizer", optimizer);
        v.section("train", train);
        v.section("generalization", generalization);
        v.section("metrics", metrics);
        v.section("cpu", cpu);
    }
};

}  // namespace moesaic
