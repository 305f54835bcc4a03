#include "launch/alarm_board.h"

#include <fmt/format.h>

#include <algorithm>

namespace moesaic {

namespace {

/// What distinguishes the kinds; in the order of AlarmKind.
struct KindEntry {
    const char* name;
    AlarmConfig AlarmsConfig::*settings;
    bool below;          ///< small values are alarming
    double healthy;      ///< the value when all is well
    bool counts_values;  ///< `steps` counts alarming values on end; else the value already takes it in
    const char* remedy;
};

constexpr KindEntry kKinds[] = {
    {"dead_experts", &AlarmsConfig::dead_experts, false, 0, false,
     "an expert without tokens learns nothing; raise model.moe.balance.aux or lower optimizer.lr"},
    {"load_max_over_mean", &AlarmsConfig::load_max_over_mean, false, 1, true,
     "raise model.moe.balance.aux; the rank that holds the expert keeps the others waiting"},
    {"entropy", &AlarmsConfig::entropy, true, 1, true,
     "the router collapses onto few experts; raise model.moe.balance.aux, lower optimizer.lr, or go back to "
     "an "
     "earlier checkpoint"},
    {"dropped_fraction", &AlarmsConfig::dropped_fraction, false, 0, true,
     "raise model.moe.capacity.factor or model.moe.balance.aux, or set model.moe.capacity to dropless"},
    {"changed_expert", &AlarmsConfig::changed_expert, false, 0, false,
     "routing that does not settle keeps experts from specialising; lower optimizer.lr"},
    {"bias_saturation", &AlarmsConfig::bias_saturation, false, 0, true,
     "the bias alone now decides which experts are chosen; lower the router's bias update rate"},
    {"loss_spike", &AlarmsConfig::loss_spike, false, 1, false,
     "look at this step's data (moesaic data dump) and at grad_norm; lower optimizer.lr or optimizer.clip, "
     "or "
     "go back to an earlier checkpoint"},
    {"heldout_rise", &AlarmsConfig::heldout_rise, false, 1, false,
     "the model overfits or diverges; take the checkpoint with the lowest held-out loss, use more data or a "
     "lower optimizer.lr"},
    {"leak", &AlarmsConfig::leak, false, 0, false,
     "look for held-out texts among the training data (the same documents, or duplicates), else the held-out "
     "data are of an easier kind; until then held-out losses and certificates say nothing about new data"},
    {"overfitting_onset", &AlarmsConfig::overfitting_onset, false, 0, false,
     "the model learns its training data by heart; use more data or fewer epochs, a higher "
     "optimizer.weight_decay, or the checkpoint before"},
    {"bound_violated", &AlarmsConfig::bound_violated, false, -0.1, false,
     "an assumption of the bound is broken, or its expression is no bound: see its assumptions in the eval "
     "record"},
};

const KindEntry& entry_of(AlarmKind kind) {
    return kKinds[static_cast<std::size_t>(kind)];
}

AlarmAction action_of(const std::string& name) {
    return name == "stop"         ? AlarmAction::stop
           : name == "checkpoint" ? AlarmAction::checkpoint
                                  : AlarmAction::warn;
}

AlarmRule rule_of(const KindEntry& entry, const AlarmConfig& settings) {
    return {settings.threshold, entry.below, entry.counts_values ? settings.steps : 1, entry.healthy};
}

/// Of a kind in a checkpoint: for each place the layer, -1 for the run's own, whether it is raised, and for
/// how many steps on end its values have called for the other state.
std::string observer_of(const KindEntry& entry) {
    return fmt::format("alarm.{}", entry.name);
}
constexpr std::size_t kPlaceNumbers = 3;

std::string place_text(std::optional<i64> layer) {
    return layer ? fmt::format(" of layer {}", *layer) : "";
}

}  // namespace

const AlarmConfig* AlarmBoard::settings(AlarmKind kind) const {
    const AlarmConfig& one = config_.*entry_of(kind).settings;
    return config_.off || one.off ? nullptr : &one;
}

void AlarmBoard::observe(i64 step, const Observation& seen, AlarmVerdict& verdict) {
    const AlarmConfig* const settings_of_kind = settings(seen.kind);
    if (settings_of_kind == nullptr) return;
    const KindEntry& entry = entry_of(seen.kind);
    const AlarmRule rule = rule_of(entry, *settings_of_kind);
    const AlarmChange change = states_[{seen.kind, seen.layer}].update(seen.value, rule);
    if (change == AlarmChange::cleared)
        verdict.cleared.push_back(fmt::format("step {}: alarm {}{} is over: {:.3g}", step, entry.name,
                                              place_text(seen.layer), seen.value));
    if (change != AlarmChange::raised) return;
    AlarmRecord record;
    record.step = step;
    record.kind = entry.name;
    record.message = fmt::format("{}; {}", seen.what(), entry.remedy);
    record.layer = seen.layer;
    record.expert = seen.expert;
    record.value = seen.value;
    record.threshold = rule.threshold;
    record.action = settings_of_kind->action;
    const AlarmAction action = action_of(record.action);
    verdict.action = std::max(verdict.action, action);
    if (action == AlarmAction::stop && verdict.stop_reason.empty())
        verdict.stop_reason =
            fmt::format("alarm {}{}: {}", record.kind, place_text(seen.layer), record.message);
    verdict.raised.push_back(std::move(record));
}

std::vector<std::string> AlarmBoard::raised(std::optional<i64> layer) const {
    std::vector<std::string> names;
    for (const auto& [place, state] : states_) {
        if (place.second == layer && state.raised()) names.emplace_back(entry_of(place.first).name);
    }
    return names;
}

std::map<std::string, std::vector<double>> AlarmBoard::observers() const {
    std::map<std::string, std::vector<double>> numbers;
    for (const auto& [place, state] : states_) {
        if (!state.raised() && state.steps() == 0) continue;
        std::vector<double>& of_kind = numbers[observer_of(entry_of(place.first))];
        of_kind.insert(of_kind.end(), {static_cast<double>(place.second.value_or(-1)),
                                       state.raised() ? 1.0 : 0.0, static_cast<double>(state.steps())});
    }
    return numbers;
}

void AlarmBoard::begin(const std::map<std::string, std::vector<double>>& observers) {
    for (std::size_t index = 0; index < std::size(kKinds); ++index) {
        const auto kind = static_cast<AlarmKind>(index);
        const AlarmConfig* const settings_of_kind = settings(kind);
        const auto found = observers.find(observer_of(kKinds[index]));
        if (settings_of_kind == nullptr || found == observers.end()) continue;
        const bool stops = action_of(settings_of_kind->action) == AlarmAction::stop;
        const std::vector<double>& numbers = found->second;
        for (std::size_t i = 0; i + kPlaceNumbers <= numbers.size(); i += kPlaceNumbers) {
            const std::optional<i64> layer =
                numbers[i] < 0 ? std::nullopt : std::optional(static_cast<i64>(numbers[i]));
            const bool raised = numbers[i + 1] != 0;
            AlarmState& state = states_[{kind, layer}];
            state = raised && stops ? AlarmState(false, rule_of(kKinds[index], *settings_of_kind).steps - 1)
                                    : AlarmState(raised, static_cast<i64>(numbers[i + 2]));
        }
    }
}

}  // namespace moesaic
