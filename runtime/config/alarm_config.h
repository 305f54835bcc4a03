// When a run speaks up about itself, and what it then does: the section metrics.alarms.
#pragma once

#include "runtime/config/limits.h"

namespace moesaic {

/// What the keys of one alarm mean; `steps` is null where an alarm has no such key.
struct AlarmKeys {
    Limits limits;
    const char* threshold;
    const char* steps;
};

struct AlarmConfig {
    const AlarmKeys* keys = nullptr;
    double threshold = 0;
    i64 steps = 1;
    bool off = false;
    std::string action = "warn";
    bool operator==(const AlarmConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("threshold", threshold, keys->limits, keys->threshold);
        if (keys->steps != nullptr) v.value("steps", steps, {1, 1e9}, keys->steps);
        v.choice("action", action, {"warn", "checkpoint", "stop"},
                 "warn: a record and a line; checkpoint: also a checkpoint; stop: that and exit code 1");
    }
};

inline constexpr AlarmKeys kDeadExpertsKeys{kPositive, "Dead experts of a layer that raise it",
                                            "Steps without a token after which an expert is dead"};
inline constexpr AlarmKeys kLoadMaxOverMeanKeys{
    {1, 1e9}, "Load of a layer's busiest expert over the mean, at least", "For so many steps on end"};
inline constexpr AlarmKeys kEntropyKeys{
    kShare, "Evenness of a layer's load, at most: 1 even, 0 all tokens on the same top_k experts",
    "For so many steps on end"};
inline constexpr AlarmKeys kDroppedFractionKeys{
    kShare, "Share of a layer's choices that were dropped, at least", "For so many steps on end"};
inline constexpr AlarmKeys kChangedExpertKeys{
    kShare, "Share of held-out tokens whose set of experts changed between evaluations, at least", nullptr};
inline constexpr AlarmKeys kBiasSaturationKeys{
    {0, 1e9},
    "Largest minus smallest selection bias of a layer, at least; scores lie within 1",
    "For so many steps on end"};
inline constexpr AlarmKeys kLossSpikeKeys{
    {1, 1e9}, "Loss over the median of the last steps, at least", "How many steps the median is taken of"};
inline constexpr AlarmKeys kHeldoutRiseKeys{
    {1, 1e9}, "Held-out loss over its lowest so far, at least", nullptr};
inline constexpr AlarmKeys kLeakKeys{
    kShare,
    "Share by which the held-out loss lies below that of training sequences not yet seen, with confidence, "
    "at least",
    nullptr};
inline constexpr AlarmKeys kOverfittingOnsetKeys{
    {0, 1e9},
    "Rise of the gap over the last evaluations in nats, with confidence, at least",
    "Over so many evaluations"};
inline constexpr AlarmKeys kBoundViolatedKeys{
    {-1e9, 1e9}, "Lower limit of a gap minus a bound of that gap, at least", nullptr};

struct AlarmsConfig {
    bool off = false;
    AlarmConfig dead_experts{&kDeadExpertsKeys, 1, 100};
    AlarmConfig load_max_over_mean{&kLoadMaxOverMeanKeys, 5, 50};
    AlarmConfig entropy{&kEntropyKeys, 0.2, 50};
    AlarmConfig dropped_fraction{&kDroppedFractionKeys, 0.2, 50};
    AlarmConfig changed_expert{&kChangedExpertKeys, 0.5, 1, true};
    AlarmConfig bias_saturation{&kBiasSaturationKeys, 1, 50};
    AlarmConfig loss_spike{&kLossSpikeKeys, 1.5, 50};
    AlarmConfig heldout_rise{&kHeldoutRiseKeys, 1.1};
    AlarmConfig leak{&kLeakKeys, 0.03};
    AlarmConfig overfitting_onset{&kOverfittingOnsetKeys, 0.02, 4};
    AlarmConfig bound_violated{&kBoundViolatedKeys, 0};
    bool operator==(const AlarmsConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        const auto alarm = [&v](const char* name, AlarmConfig& config, const char* help) {
            v.section_or_word(name, config, config.off, "off", help);
        };
        alarm("dead_experts", dead_experts, "Experts that get no token");
        alarm("load_max_over_mean", load_max_over_mean, "One expert gets far more than the others");
        alarm("entropy", entropy, "The router uses few experts");
        alarm("dropped_fraction", dropped_fraction, "Choices beyond the capacity");
        alarm("changed_expert", changed_expert, "Routing that does not settle: threshold (0.5), action");
        alarm("bias_saturation", bias_saturation, "Selection biases that outweigh all scores");
        alarm("loss_spike", loss_spike, "The loss jumps up");
        alarm("heldout_rise", heldout_rise, "The held-out loss rises again");
        alarm("leak", leak, "Held-out data are easier than training data that were not yet seen");
        alarm("overfitting_onset", overfitting_onset, "The generalization gap is open and widens");
        alarm("bound_violated", bound_violated, "A gap exceeds its bound: an assumption is broken");
    }
};

}  // namespace moesaic
