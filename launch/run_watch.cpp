#include "launch/run_watch.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/median.h"
#include "runtime/metrics/bounds/bound_table.h"
#include "runtime/metrics/explain.h"
#include "runtime/metrics/load_summary.h"
#include "runtime/metrics/unit_losses.h"

namespace moesaic {

namespace {

constexpr std::size_t kExpertsNamed = 8;

// In checkpoints: layer, expert and steps of each expert that was idle in the last step; losses of the last
// steps; the lowest held-out loss and its step.
constexpr const char* kIdle = "idle_experts";
constexpr const char* kLosses = "watched_losses";
constexpr const char* kLowest = "lowest_heldout_loss";

/// "5", "1, 4, 5", and no more than a line holds.
std::string named(std::vector<i64> experts) {
    const bool many = experts.size() > kExpertsNamed;
    if (many) experts.resize(kExpertsNamed);
    return fmt::format("{}{}", fmt::join(experts, ", "), many ? ", ..." : "");
}

/// Whether it claims to be above the gap.
bool bounds_the_gap(const std::string& name, const BoundResult& result) {
    const Bound* const bound = find_bound(name);
    return bound != nullptr && (bound->kind == BoundKind::gap || name.starts_with("published")) &&
           speaks_of_the_model(result);
}

}  // namespace

RunWatch::RunWatch(const AlarmsConfig& alarms, const ModelSpec& spec) : spec_(spec), board_(alarms) {
    for (int layer = 0; layer < spec.layers; ++layer) {
        if (!spec.has_experts(layer)) continue;
        ExpertsRecord& record = layers_.emplace_back();
        record.layer = layer;
        record.load.assign(static_cast<std::size_t>(spec.experts), 0);
        record.idle_steps.assign(static_cast<std::size_t>(spec.experts), 0);
    }
}

void RunWatch::measure_layer(std::size_t index, i64 step, const StepResult& result,
                             const std::vector<double>& bias) {
    ExpertsRecord& record = layers_[index];
    const auto first = result.expert_counts.begin() + static_cast<std::ptrdiff_t>(index) * spec_.experts;
    record.step = step;
    record.load.assign(first, first + spec_.experts);
    for (std::size_t expert = 0; expert < record.load.size(); ++expert) {
        i64& idle = record.idle_steps[expert];
        idle = record.load[expert] > 0 ? 0 : idle + 1;
    }
    const LoadSummary summary = summarize_load(record.load, spec_.top_k);
    const RouterMeans& means = result.routers[index];
    record.entropy = summary.entropy;
    record.dead = summary.dead;
    record.evenness = summary.evenness;
    record.max_over_mean = summary.max_over_mean;
    record.variation = summary.variation;
    record.weight_mean = means.weight;
    record.router_entropy = means.entropy;
    record.first_weight_mean = means.first_weight;
    record.dropped_fraction = means.dropped;
    if (!bias.empty()) {
        const auto [low, high] = std::minmax_element(bias.begin(), bias.end());
        record.bias_span = *high - *low;
    }
}

void RunWatch::watch_dead_experts(const ExpertsRecord& layer, AlarmVerdict& verdict) {
    const AlarmConfig* const settings = board_.settings(AlarmKind::dead_experts);
    if (settings == nullptr) return;
    std::vector<i64> dead;
    for (std::size_t expert = 0; expert < layer.idle_steps.size(); ++expert) {
        if (layer.idle_steps[expert] >= settings->steps) dead.push_back(static_cast<i64>(expert));
    }
    board_.observe(layer.step,
                   {AlarmKind::dead_experts, static_cast<double>(dead.size()), layer.layer,
                    dead.empty() ? std::nullopt : std::optional(dead.front()),
                    [&] {
                        return fmt::format("{} of {} experts ({}) got no token for {} steps", dead.size(),
                                           layer.load.size(), named(dead), settings->steps);
                    }},
                   verdict);
}

void RunWatch::watch_layer(const ExpertsRecord& layer, AlarmVerdict& verdict) {
    watch_dead_experts(layer, verdict);
    const auto steps = [this](AlarmKind kind) {
        const AlarmConfig* const settings = board_.settings(kind);
        return settings == nullptr ? 0 : settings->steps;
    };
    const i64 busiest = std::max_element(layer.load.begin(), layer.load.end()) - layer.load.begin();
    board_.observe(layer.step,
                   {AlarmKind::load_max_over_mean, *layer.max_over_mean, layer.layer, busiest,
                    [&] {
                        return fmt::format(
                            "expert {} has {:.2f} times the mean load, and some expert had as "
                            "much for {} steps",
                            busiest, *layer.max_over_mean, steps(AlarmKind::load_max_over_mean));
                    }},
                   verdict);
    board_.observe(layer.step,
                   {AlarmKind::entropy,
                    *layer.evenness,
                    layer.layer,
                    {},
                    [&] {
                        return fmt::format(
                            "the load's evenness is {:.3f} (1 even, 0 all tokens on the same {} "
                            "experts), and was low for {} steps",
                            *layer.evenness, spec_.top_k, steps(AlarmKind::entropy));
                    }},
                   verdict);
    board_.observe(layer.step,
                   {AlarmKind::dropped_fraction,
                    *layer.dropped_fraction,
                    layer.layer,
                    {},
                    [&] {
                        return fmt::format("{:.1f} % of the choices are dropped, and so it was for {} steps",
                                           100 * *layer.dropped_fraction, steps(AlarmKind::dropped_fraction));
                    }},
                   verdict);
    if (!layer.bias_span) return;
    board_.observe(layer.step,
                   {AlarmKind::bias_saturation,
                    *layer.bias_span,
                    layer.layer,
                    {},
                    [&] { return fmt::format("selection biases lie {:.2f} apart", *layer.bias_span); }},
                   verdict);
}

void RunWatch::watch_loss(i64 step, double loss, AlarmVerdict& verdict) {
    const AlarmConfig* const settings = board_.settings(AlarmKind::loss_spike);
    if (settings == nullptr) return;
    if (std::ssize(losses_) == settings->steps) {
        const double usual = upper_median({losses_.begin(), losses_.end()});
        if (usual > 0) {
            board_.observe(step,
                           {AlarmKind::loss_spike,
                            loss / usual,
                            {},
                            {},
                            [&] {
                                return fmt::format(
                                    "the loss is {:.3f}, {:.2f} times the median of the {} steps "
                                    "before",
                                    loss, loss / usual, settings->steps);
                            }},
                           verdict);
        }
        losses_.pop_front();
    }
    losses_.push_back(loss);
}

AlarmVerdict RunWatch::after_step(i64 step, const StepResult& result,
                                  const std::vector<std::vector<double>>& biases) {
    AlarmVerdict verdict;
    for (std::size_t index = 0; index < layers_.size(); ++index) {
        measure_layer(index, step, result, biases[index]);
        watch_layer(layers_[index], verdict);
    }
    watch_loss(step, result.loss, verdict);
    return verdict;
}

AlarmVerdict RunWatch::after_evaluation(i64 step, std::optional<double> heldout_loss,
                                        const std::vector<RoutingChange>& changes) {
    AlarmVerdict verdict;
    changed_.clear();
    for (const RoutingChange& change : changes) {
        changed_.push_back(change.share);
        board_.observe(step,
                       {AlarmKind::changed_expert,
                        change.share,
                        change.layer,
                        {},
                        [&] {
                            return fmt::format(
                                "{:.0f} % of the held-out probe's tokens have other experts than "
                                "at the evaluation before",
                                100 * change.share);
                        }},
                       verdict);
    }
    if (!heldout_loss || !std::isfinite(*heldout_loss)) return verdict;
    if (lowest_heldout_ && lowest_heldout_->loss > 0) {
        board_.observe(step,
                       {AlarmKind::heldout_rise,
                        *heldout_loss / lowest_heldout_->loss,
                        {},
                        {},
                        [&] {
                            return fmt::format(
                                "the held-out loss is {:.3f}, {:.2f} times its lowest, {:.3f} at "
                                "step {}",
                                *heldout_loss, *heldout_loss / lowest_heldout_->loss, lowest_heldout_->loss,
                                lowest_heldout_->step);
                        }},
                       verdict);
    }
    if (!lowest_heldout_ || *heldout_loss < lowest_heldout_->loss) lowest_heldout_ = {*heldout_loss, step};
    return verdict;
}

void RunWatch::look_at_gap(const EvalRecord& record, AlarmVerdict& verdict) {
    if (record.unseen_difference && record.train_unseen_loss && *record.train_unseen_loss > 0) {
        const IntervalRecord& difference = *record.unseen_difference;
        board_.observe(record.step,
                       {AlarmKind::leak,
                        difference.low / *record.train_unseen_loss,
                        {},
                        {},
                        [&] {
                            return fmt::format(
                                "the held-out loss lies {:.3f} nats [{:.3f}, {:.3f}] below that of training "
                                "sequences that were not seen yet, {:.3f}",
                                difference.value, difference.low, difference.high, *record.train_unseen_loss);
                        }},
                       verdict);
    }
    if (record.gap_rise && record.gap_low) {
        const IntervalRecord& rise = *record.gap_rise;
        // A gap that is not open cannot widen: held-out data may be learnt more slowly for being harder.
        board_.observe(record.step,
                       {AlarmKind::overfitting_onset,
                        *record.gap_low > 0 ? rise.low : std::min(rise.low, 0.0),
                        {},
                        {},
                        [&] {
                            return fmt::format(
                                "the gap is {:.3f} nats [{:.3f}, {:.3f}] and grew by {:.3f} [{:.3f}, {:.3f}] "
                                "over the last evaluations",
                                *record.gap, *record.gap_low, *record.gap_high, rise.value, rise.low,
                                rise.high);
                        }},
                       verdict);
    }
    watch_bounds(record, verdict);
}

void RunWatch::watch_bounds(const EvalRecord& record, AlarmVerdict& verdict) {
    const auto gap = record.gaps.find(std::string(name_of(kGapBoundLoss)));
    if (gap == record.gaps.end()) return;
    const std::pair<const std::string, BoundResult>* worst = nullptr;
    for (const auto& one : record.bounds) {
        if (!bounds_the_gap(one.first, one.second)) continue;
        if (worst == nullptr || one.second.value < worst->second.value) worst = &one;
    }
    if (worst == nullptr) return;
    board_.observe(record.step,
                   {AlarmKind::bound_violated,
                    gap->second.low - worst->second.value,
                    {},
                    {},
                    [&] {
                        return fmt::format(
                            "the gap of the {} loss is at least {:.3f}, and {} says at most {:.3f}",
                            name_of(kGapBoundLoss), gap->second.low, worst->first, worst->second.value);
                    }},
                   verdict);
}

std::map<std::string, std::vector<double>> RunWatch::observers() const {
    std::map<std::string, std::vector<double>> numbers = board_.observers();
    for (const ExpertsRecord& layer : layers_) {
        for (std::size_t expert = 0; expert < layer.idle_steps.size(); ++expert) {
            if (layer.idle_steps[expert] == 0) continue;
            std::vector<double>& idle = numbers[kIdle];
            idle.insert(idle.end(), {static_cast<double>(layer.layer), static_cast<double>(expert),
                                     static_cast<double>(layer.idle_steps[expert])});
        }
    }
    if (!losses_.empty()) numbers[kLosses] = {losses_.begin(), losses_.end()};
    if (lowest_heldout_)
        numbers[kLowest] = {lowest_heldout_->loss, static_cast<double>(lowest_heldout_->step)};
    return numbers;
}

void RunWatch::begin(const std::map<std::string, std::vector<double>>& observers) {
    board_.begin(observers);
    const auto numbers_of = [&](const char* name) {
        const auto found = observers.find(name);
        return found == observers.end() ? std::vector<double>{} : found->second;
    };
    const std::vector<double> idle = numbers_of(kIdle), losses = numbers_of(kLosses),
                              lowest = numbers_of(kLowest);
    for (std::size_t i = 0; i + 3 <= idle.size(); i += 3) {
        const auto expert = static_cast<std::size_t>(std::max(0.0, idle[i + 1]));
        for (ExpertsRecord& layer : layers_)
            if (static_cast<double>(layer.layer) == idle[i] && expert < layer.idle_steps.size())
                layer.idle_steps[expert] = static_cast<i64>(idle[i + 2]);
    }
    if (const AlarmConfig* const spike = board_.settings(AlarmKind::loss_spike)) {
        losses_.assign(losses.begin(), losses.end());
        while (std::ssize(losses_) > spike->steps) losses_.pop_front();
    }
    if (lowest.size() == 2) lowest_heldout_ = {lowest[0], static_cast<i64>(lowest[1])};
}

std::vector<ExpertsRecord> RunWatch::layers() const {
    std::vector<ExpertsRecord> records = layers_;
    for (ExpertsRecord& record : records) record.alarms = board_.raised(record.layer);
    return records;
}

double RunWatch::worst_max_over_mean() const {
    double worst = 1;
    for (const ExpertsRecord& layer : layers_) worst = std::max(worst, layer.max_over_mean.value_or(1));
    return worst;
}

double RunWatch::dropped_fraction() const {
    double sum = 0;  // every layer makes as many choices
    for (const ExpertsRecord& layer : layers_) sum += layer.dropped_fraction.value_or(0);
    return layers_.empty() ? 0 : sum / static_cast<double>(layers_.size());
}

RouterHealthRecord RunWatch::health(bool last) const {
    return {layers_.empty() ? 0 : layers_.front().step, last, layers(), changed_};
}

}  // namespace moesaic
