// What a run tells about itself: one struct per event, its members named once as metrics.jsonl names them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// The first record: what runs where.
struct RunRecord {
    static constexpr std::string_view kEvent = "run";
    std::string version, commit, config;
    i64 world_size = 1;  ///< the product of the next three
    i64 expert_parallel = 1, expert_tensor = 1, data_parallel = 1;
    std::string device, host;
    i64 parameters = 0, active_parameters = 0;
    i64 training_samples = 0;  ///< different sequences or examples that training draws from
    std::string unit;          ///< that certificates and intervals count: document, sequence or example
    std::string unit_reason;   ///< why, of language models
    std::string balance;       ///< convention of the load-balance loss, and its value at perfect balance
    std::string capacity;      ///< rows of an expert, and what is dropped

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("version", version);
        visit("commit", commit);
        visit("config", config);
        visit("world_size", world_size);
        visit("expert_parallel", expert_parallel);
        visit("expert_tensor", expert_tensor);
        visit("data_parallel", data_parallel);
        visit("device", device);
        visit("host", host);
        visit("parameters", parameters);
        visit("active_parameters", active_parameters);
        visit("training_samples", training_samples);
        visit("unit", unit);
        visit("unit_reason", unit_reason);
        visit("balance", balance);
        visit("capacity", capacity);
    }
};

/// One training step. Times are the slowest rank's, exchange_bytes the world's, memory_bytes the largest
/// rank's; members without a source are absent.
struct StepRecord {
    static constexpr std::string_view kEvent = "step";
    i64 step = 0;
    i64 tokens = 0;   ///< seen so far
    double loss = 0;  ///< this step's cross-entropy (nats per token) or task loss, nothing added
    std::optional<double> loss_aux, loss_z, grad_norm;
    double lr = 0;
    std::optional<double> tokens_per_s, step_ms, exchange_ms;
    std::optional<i64> exchange_bytes;
    std::optional<double> flops_utilization;   ///< of the measured peak
    std::optional<double> load_max_over_mean;  ///< of the experts; 1 is even
    std::optional<double> dropped_fraction;    ///< of the (token, choice) pairs
    std::optional<i64> memory_bytes;
    std::optional<double> loss_importance, loss_load;  ///< where they have a coefficient
    /// Of the expert-parallel ranks, in the layer where it is largest; where there are several ranks.
    std::optional<double> rank_load_max_over_mean;
    std::map<std::string, BoundResult> bounds;  ///< certificates from data met for the first time
    /// The rank with the most work of its own since the last record, what part of it exceeds the ranks' mean
    /// most (WorkPhase), and by how much all of it does, per step; where there are several ranks.
    std::optional<i64> slowest_rank;
    std::string slowest_phase;
    std::optional<double> slowest_excess_ms;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("tokens", tokens);
        visit("loss", loss);
        visit("loss_aux", loss_aux);
        visit("loss_z", loss_z);
        visit("grad_norm", grad_norm);
        visit("lr", lr);
        visit("tokens_per_s", tokens_per_s);
        visit("step_ms", step_ms);
        visit("exchange_ms", exchange_ms);
        visit("exchange_bytes", exchange_bytes);
        visit("flops_utilization", flops_utilization);
        visit("load_max_over_mean", load_max_over_mean);
        visit("dropped_fraction", dropped_fraction);
        visit("memory_bytes", memory_bytes);
        visit("loss_importance", loss_importance);
        visit("loss_load", loss_load);
        visit("rank_load_max_over_mean", rank_load_max_over_mean);
        visit("slowest_rank", slowest_rank);
        visit("slowest_phase", slowest_phase);
        visit("slowest_excess_ms", slowest_excess_ms);
        visit("bounds", bounds);
    }
};

/// The experts of one layer in one step.
struct ExpertsRecord {
    static constexpr std::string_view kEvent = "experts";
    i64 step = 0, layer = 0;
    std::vector<i64> load;              ///< tokens per expert over all ranks
    std::optional<double> entropy;      ///< of the load, nats
    std::optional<i64> dead;            ///< experts without tokens in this step
    std::optional<double> weight_mean;  ///< of the routing weights
    /// Of the load: 1 is even, 0 as uneven as it can be, all tokens on the same top_k experts.
    std::optional<double> evenness;
    std::optional<double> max_over_mean, variation;  ///< of the load; variation is standard deviation / mean
    std::vector<i64> idle_steps;                     ///< by expert: steps since its last token
    std::optional<double> router_entropy;            ///< mean over tokens, of the router's distribution, nats
    std::optional<double> first_weight_mean;         ///< over tokens, of the first choice's weight
    std::optional<double> dropped_fraction;          ///< of the choices
    std::optional<double> bias_span;                 ///< largest minus smallest selection bias
    std::vector<std::string> alarms;                 ///< kinds that are raised for this layer now

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("layer", layer);
        visit("load", load);
        visit("entropy", entropy);
        visit("dead", dead);
        visit("weight_mean", weight_mean);
        visit("evenness", evenness);
        visit("max_over_mean", max_over_mean);
        visit("variation", variation);
        visit("idle_steps", idle_steps);
        visit("router_entropy", router_entropy);
        visit("first_weight_mean", first_weight_mean);
        visit("dropped_fraction", dropped_fraction);
        visit("bias_span", bias_span);
        visit("alarms", alarms);
    }
};

/// All layers with experts at once, for sinks that people read; its numbers are those of ExpertsRecord.
struct RouterHealthRecord {
    i64 step = 0;
    bool last = false;  ///< at the end of the run
    std::vector<ExpertsRecord> layers;
    std::vector<double> changed;  ///< by layer, RoutingChange::share of the latest evaluation; may be empty
};

/// How many tokens of a fixed held-out probe have another set of experts than at the evaluation before.
struct RoutingChange {
    i64 layer = 0;
    double share = 0;
    bool operator==(const RoutingChange&) const = default;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("layer", layer);
        visit("share", share);
    }
};

/// A number with its confidence limits.
struct IntervalRecord {
    double value = 0, low = 0, high = 0;
    bool operator==(const IntervalRecord&) const = default;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("value", value);
        visit("low", low);
        visit("high", high);
    }
};

/// Which experts of one layer the held-out tokens of each source or file choose, and whether that differs.
struct DomainExperts {
    i64 layer = 0;
    std::map<std::string, std::vector<double>> share;  ///< by source: of its choices, by expert
    double mutual_information = 0;                     ///< of source and expert of a choice, nats
    /// The same where sources are shuffled among sequences: mean, and how often it was as large.
    double shuffled_information = 0, p_value = 1;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("layer", layer);
        visit("share", share);
        visit("mutual_information", mutual_information);
        visit("shuffled_information", shuffled_information);
        visit("p_value", p_value);
    }
};

/// Held-out samples against training samples already seen, both under the current parameters. "Unseen" are
/// training samples that will come only at the end of the first epoch, while that is still ahead.
struct EvalRecord {
    static constexpr std::string_view kEvent = "eval";
    i64 step = 0;
    std::optional<double> heldout_loss, train_probe_loss, gap, gap_low, gap_high;
    std::optional<double> heldout_error, train_probe_error;
    std::map<std::string, double> heldout_by_source;  ///< by source of a blend, or by file
    std::map<std::string, BoundResult> bounds;
    std::vector<RoutingChange> routing_changed;  ///< by layer; empty at the first evaluation
    /// Of held-out samples from another distribution than the training samples': combinations never trained
    /// on.
    std::optional<double> shifted_loss, shifted_error;
    /// Share of single targets that are wrong, where a sample's error counts all of its targets together.
    std::optional<double> heldout_target_error, shifted_target_error;
    std::string unit = "sequence";  ///< what is drawn independently, and losses are means over
    /// How often the run has looked, this time included: limits of held-out losses and `gaps` hold at all of
    /// its looks at once. Absent: there are none, or each stands by itself at level delta
    /// (delta_of_statement).
    std::optional<i64> look;
    std::optional<double> train_unseen_loss, train_unseen_error;
    std::optional<i64> train_probe_age;  ///< steps since training saw the last of the train probe
    /// Mean losses by shard (heldout, train_seen, train_unseen) and UnitLoss.
    std::map<std::string, std::map<std::string, double>> losses;
    /// Held-out minus seen training loss, by bounded UnitLoss: limits by betting, of documents by
    /// Bernstein's form (bounded_gap_interval, ordered_gap_interval), valid as `look` says. gap_low and
    /// gap_high are those of the raw loss, normal, and spend the same delta.
    std::map<std::string, IntervalRecord> gaps;
    /// Since the evaluation before, unit by unit: of the held-out loss, and of the gap.
    std::optional<IntervalRecord> heldout_change, gap_change;
    /// Of the gap over the last evaluations (alarm overfitting_onset).
    std::optional<IntervalRecord> gap_rise;
    /// Unseen training loss minus held-out loss (alarm leak).
    std::optional<IntervalRecord> unseen_difference;
    std::map<std::string, std::vector<double>> measured;  ///< what the bounds were computed from, see README
    std::vector<DomainExperts> domain_experts;            ///< by layer; empty where there is one source alone
    std::string prequential_off;                          ///< why there is no fresh-data certificate
    /// Why held-out data say nothing of new data: no certificate and no gap; and why it is not known which
    /// training data were met: no gap, no look-ahead, no bound by their number.
    std::string heldout_off, seen_off;
    std::string meaning;  ///< the record in plain words
    /// Share of the run's time so far: of evaluations in all; of what bounds and certificates took, in steps
    /// and besides the losses of the held-out shard and the train probe in evaluations.
    std::optional<double> evaluation_share, generalization_share;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("heldout_loss", heldout_loss);
        visit("train_probe_loss", train_probe_loss);
        visit("gap", gap);
        visit("gap_low", gap_low);
        visit("gap_high", gap_high);
        visit("heldout_error", heldout_error);
        visit("train_probe_error", train_probe_error);
        visit("heldout_by_source", heldout_by_source);
        visit("bounds", bounds);
        visit("routing_changed", routing_changed);
        visit("shifted_loss", shifted_loss);
        visit("shifted_error", shifted_error);
        visit("heldout_target_error", heldout_target_error);
        visit("shifted_target_error", shifted_target_error);
        visit("unit", unit);
        visit("look", look);
        visit("train_unseen_loss", train_unseen_loss);
        visit("train_unseen_error", train_unseen_error);
        visit("train_probe_age", train_probe_age);
        visit("losses", losses);
        visit("gaps", gaps);
        visit("heldout_change", heldout_change);
        visit("gap_change", gap_change);
        visit("gap_rise", gap_rise);
        visit("unseen_difference", unseen_difference);
        visit("measured", measured);
        visit("domain_experts", domain_experts);
        visit("prequential_off", prequential_off);
        visit("heldout_off", heldout_off);
        visit("seen_off", seen_off);
        visit("meaning", meaning);
        visit("evaluation_share", evaluation_share);
        visit("generalization_share", generalization_share);
    }
};

/// Bounds that were computed of a run's checkpoint afterwards.
struct BoundRecord {
    static constexpr std::string_view kEvent = "bound";
    i64 step = 0;        ///< of the checkpoint
    i64 prior_step = 0;  ///< of the checkpoint that they measure from
    std::map<std::string, BoundResult> bounds;
    std::string meaning;  ///< the record in plain words
    double seconds = 0;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("prior_step", prior_step);
        visit("bounds", bounds);
        visit("meaning", meaning);
        visit("seconds", seconds);
    }
};

struct AlarmRecord {
    static constexpr std::string_view kEvent = "alarm";
    i64 step = 0;
    std::string kind, message;
    std::optional<i64> rank, layer, expert;  ///< what the alarm speaks of
    std::optional<double> value, threshold;  ///< what was measured, and from where on it is alarming
    std::string action = "warn";             ///< what the run does about it

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("kind", kind);
        visit("message", message);
        visit("rank", rank);
        visit("layer", layer);
        visit("expert", expert);
        visit("value", value);
        visit("threshold", threshold);
        visit("action", action);
    }
};

/// What became of one layer's experts.
struct LayerPlacement {
    i64 layer = 0;
    std::vector<i64> experts, ranks;  ///< those that moved, and to which rank of their expert-parallel group
    double max_over_mean_before = 1,
           max_over_mean_after = 1;                 ///< of the ranks' loads since the last decision
    std::vector<i64> copies = {}, copy_ranks = {};  ///< experts that have copies from now on, and where

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("layer", layer);
        visit("experts", experts);
        visit("ranks", ranks);
        visit("max_over_mean_before", max_over_mean_before);
        visit("max_over_mean_after", max_over_mean_after);
        visit("copies", copies);
        visit("copy_ranks", copy_ranks);
    }
};

/// Experts were moved or copied after a step.
struct PlacementRecord {
    static constexpr std::string_view kEvent = "placement";
    i64 step = 0;
    std::vector<LayerPlacement> layers;  ///< whose experts moved, or other copies
    i64 bytes = 0;                       ///< sent between ranks, of all ranks
    double seconds = 0;                  ///< the slowest rank's

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("layers", layers);
        visit("bytes", bytes);
        visit("seconds", seconds);
    }
};

struct CheckpointRecord {
    static constexpr std::string_view kEvent = "checkpoint";
    i64 step = 0;
    std::string path;
    i64 bytes = 0;             ///< of all shards
    double seconds = 0;        ///< until it was complete
    double stall_seconds = 0;  ///< of these, how long training stood still

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("path", path);
        visit("bytes", bytes);
        visit("seconds", seconds);
        visit("stall_seconds", stall_seconds);
    }
};

/// The last record.
struct EndRecord {
    static constexpr std::string_view kEvent = "end";
    i64 step = 0;
    std::string status;  ///< e.g. "done", "stopped", "failed"
    double seconds = 0;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("step", step);
        visit("status", status);
        visit("seconds", seconds);
    }
};

}  // namespace moesaic
