#include "launch/generalization.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "launch/adds_seconds.h"
#include "launch/domain_routing.h"
#include "launch/model_measures.h"
#include "runtime/metrics/bounds/bound_table.h"
#include "runtime/metrics/bounds/test_set.h"
#include "runtime/metrics/explain.h"

namespace moesaic {

namespace {

constexpr const char* kRunNumbers = "generalization";
constexpr std::size_t kFewestRunNumbers = 6;
constexpr const char* kPrequentialNumbers = "prequential";
constexpr const char* kPrequentialOf = "prequential_of";
constexpr const char* kLookStep = "generalization_look_step";
constexpr std::array kMarginQuantiles{0.05, 0.25, 0.5, 0.75, 0.95};

/// Counts what observers take beside the evaluation that they see.
class TimedObserver final : public RoutingObserver {
  public:
    TimedObserver(RoutingObserver& observer, double& seconds) : observer_(observer), seconds_(seconds) {}
    void routed(StepContext& context, int layer, const Routing& routing) override {
        const AddsSeconds watch(seconds_);
        observer_.routed(context, layer, routing);
    }

  private:
    RoutingObserver& observer_;
    double& seconds_;
};

/// Of units that have targets.
std::vector<double> losses_of(const std::vector<UnitScores>& units, UnitLoss loss) {
    std::vector<double> losses;
    for (const UnitScores& unit : units) {
        if (unit.targets > 0) losses.push_back(unit.of(loss));
    }
    return losses;
}

/// Documents of a shard that `is_one` says yes to; all units where they are no documents.
template <class Condition>
std::vector<UnitScores> units_where(const ShardScores& scores, const DocumentUnits* documents,
                                    const Condition& is_one) {
    if (documents == nullptr) return scores.units;
    std::vector<UnitScores> units;
    for (std::size_t i = 0; i < scores.units.size(); ++i) {
        if (is_one(documents->documents[i])) units.push_back(scores.units[i]);
    }
    return units;
}

/// Units that two shards may be compared by. Documents have to lie whole in a window: single windows cut
/// many, neighbouring ones few, and a piece is harder to predict than a whole document.
std::vector<UnitScores> comparable_units(const ShardScores& scores, const DocumentUnits* documents) {
    return units_where(scores, documents, [](const DocumentUnits::Document& one) { return one.whole; });
}

/// Units that training will come to, and this very model has not met: "heldout_lookahead" for "heldout".
std::string look_ahead_name(const std::string& heldout_name) {
    const std::string_view heldout = "heldout";
    return std::string(heldout) + "_lookahead" + heldout_name.substr(heldout.size());
}

/// The mean over units; of documents over targets, so that shards that cut them otherwise can be compared.
double mean_loss(const ShardScores& scores, UnitLoss loss) {
    double sum = 0, weights = 0;
    for (const UnitScores& unit : scores.units) {
        const double weight = scores.by_document ? unit.targets : unit.targets > 0 ? 1 : 0;
        if (weight == 0) continue;
        sum += weight * unit.of(loss);
        weights += weight;
    }
    return sum / std::max(weights, 1.0);
}

}  // namespace

void record_shifted(RankRuntime& runtime, const RunSetup& run, EvalRecord& record) {
    const std::vector<i64> windows = shifted_windows(run);
    if (windows.empty()) return;
    const ShardScores shifted = evaluate_windows(runtime, run, windows, true);
    record.shifted_loss = shifted.mean_loss();
    record.shifted_error = shifted.mean_error();
    if (shifted.measure == SampleError::any_wrong) record.shifted_target_error = shifted.mean_share_wrong();
}

Generalization::Generalization(RankRuntime& runtime, const RunSetup& run)
    : runtime_(runtime),
      run_(run),
      shards_(evaluation_shards(run)),
      history_(run),
      first_epoch_(run.dataset->first_epoch_sequences(static_cast<u64>(run.config.run.seed))),
      bounded_(run.spec.loss == LossKind::cross_entropy),
      off_(why_training_forward_differs(run.spec)),
      losses_(static_cast<std::size_t>(std::max<i64>(2, run.config.metrics.alarms.overfitting_onset.steps))) {
    options_.scales = loss_scales(run);
    options_.delta = run.config.generalization.delta;
    options_.exact_errors = options_.scales.all_right || run.spec.targets_per_sequence() == 1;
    options_.text = run.unit.text;
    options_.documents = run.unit.documents;
    if (!run.unit.documents) return;
    documents_ = Documents{document_units(*run.dataset, DataPart::heldout, shards_.heldout),
                           document_units(*run.dataset, DataPart::training, shards_.seen),
                           document_units(*run.dataset, DataPart::training, shards_.unseen)};
}

std::map<std::string, std::vector<double>> Generalization::observers(i64 step) const {
    const auto number = [](i64 value) { return static_cast<double>(value); };
    std::map<std::string, std::vector<double>> numbers = history_.observers(step);
    numbers[kRunNumbers] = {number(looks_),
                            imported_ ? 1.0 : 0.0,
                            number(run_.config.run.seed),
                            number(run_.config.train.batch_sequences),
                            number(first_epoch_),
                            number(run_.dataset->training_windows())};
    if (look_step_) numbers[kLookStep] = {number(*look_step_)};
    if (!prequential_) return numbers;
    numbers[kPrequentialNumbers] = prequential_->state();
    numbers[kPrequentialOf] = prequential_of();
    return numbers;
}

void Generalization::begin(const TrainingPosition& position, bool imported) {
    const auto stored = position.observers.find(kRunNumbers);
    const bool known = stored != position.observers.end() && stored->second.size() >= kFewestRunNumbers;
    imported_ = known ? stored->second[1] != 0 : imported;
    history_.begin(position, imported_);
    options_.from_scratch = !imported_;
    options_.recorded = history_.recorded();
    if (known) looks_ = static_cast<i64>(stored->second[0]);
    if (!off_.empty()) return;
    const double per_sequence = documents_ ? run_.unit.documents_per_sequence : 1;
    prequential_.emplace(options_, per_sequence * static_cast<double>(first_epoch_),
                         per_sequence * static_cast<double>(run_.config.train.batch_sequences));
    if (position.step > 0) off_ = go_on_from(position);
    if (!off_.empty()) prequential_.reset();
}

std::vector<double> Generalization::prequential_of() const {
    return {documents_ ? 1.0 : 0.0, static_cast<double>(run_.config.train.batch_sequences),
            options_.scales.smoothing, options_.delta};
}

std::string Generalization::go_on_from(const TrainingPosition& position) {
    const auto state = position.observers.find(kPrequentialNumbers),
               of = position.observers.find(kPrequentialOf);
    if (!history_.why_order_unknown().empty())
        return "the run was resumed with other data, or in another order";
    if (state == position.observers.end())
        return "the checkpoint that the run was resumed from holds no state of it";
    const std::vector<double> mine = prequential_of();
    if (of == position.observers.end() || of->second.size() != mine.size())
        return "the checkpoint that the run was resumed from holds another version's state of it";
    if (of->second[0] != mine[0]) return "it was begun with another unit (generalization.unit)";
    if (of->second[1] != mine[1]) return "it was begun with another train.batch_sequences";
    if (of->second != mine)
        return "it was begun with another generalization.smoothing or generalization.delta";
    return prequential_->restore(state->second)
               ? ""
               : "the checkpoint that the run was resumed from holds another version's state of it";
}

void Generalization::give_up_fresh_data(const std::string& reason) {
    if (off_.empty()) off_ = reason;
    prequential_.reset();
}

bool Generalization::all_fresh(i64 step) const {
    return history_.position(step) <= first_epoch_;
}

std::optional<LossScales> Generalization::scales_of_step(i64 step) const {
    return prequential_ && all_fresh(step) ? std::optional(options_.scales) : std::nullopt;
}

void Generalization::add_step(i64 step, const StepResult& result) {
    if (!prequential_ || !all_fresh(step)) return;
    const AddsSeconds watch(extra_seconds_);
    MOESAIC_ASSERT(std::ssize(result.unit_sums) == run_.config.train.batch_sequences,
                   "units of {} sequences in a batch of {}", result.unit_sums.size(),
                   run_.config.train.batch_sequences);
    prequential_->add(result.unit_sums);
}

UnitRanges Generalization::unit_ranges() const {
    if (!documents_) return {};
    return [this](i64 step, i64 sequence) {
        std::vector<TargetRange> ranges;
        const i64 number = history_.position(step - 1) + sequence;
        for (const WindowDocument& document :
             run_.dataset->documents_first_met(static_cast<u64>(run_.config.run.seed), number))
            ranges.push_back({document.first_target, document.targets});
        return ranges;
    };
}

std::map<std::string, BoundResult> Generalization::prequential_bounds(i64 step) const {
    if (!prequential_) return {};
    std::map<std::string, BoundResult> bounds = prequential_->bounds();
    const i64 last = std::min(step, first_epoch_ / run_.config.train.batch_sequences);
    for (auto& [name, bound] : bounds) bound.details.add("until_step", static_cast<double>(last));
    return bounds;
}

bool Generalization::has_seen_probe(i64 step) const {
    return step >= shards_.seen_at_step && history_.why_order_unknown().empty() &&
           history_.after(step).prefix >= std::ssize(shards_.seen);
}

void Generalization::record_shard(const std::string& name, const ShardScores& scores,
                                  EvalRecord& record) const {
    if (scores.units.empty()) return;
    if (bounded_ && scores.margins.total() > 0) {
        for (const double share : kMarginQuantiles)
            record.measured["margin_quantiles_" + name].push_back(scores.margins.quantile(share));
    }
    for (const UnitLoss loss : all_unit_losses()) {
        if (loss == UnitLoss::raw || bounded_)
            record.losses[name][std::string(name_of(loss))] = mean_loss(scores, loss);
    }
}

void Generalization::record_gap(const Scores& scores, EvalRecord& record) {
    if (scores.heldout.units.empty() || !record.heldout_off.empty()) return;
    const auto documents = [&](DocumentUnits Documents::*shard) {
        return documents_ ? &((*documents_).*shard) : nullptr;
    };
    const std::vector<UnitScores> heldout = comparable_units(scores.heldout, documents(&Documents::heldout)),
                                  seen = comparable_units(scores.seen, documents(&Documents::seen)),
                                  unseen = comparable_units(scores.unseen, documents(&Documents::unseen));
    const double delta = delta_of_statement(options_.delta, record.look);
    if (!unseen.empty() && !heldout.empty())
        record.unseen_difference =
            mean_difference(losses_of(unseen, UnitLoss::raw), losses_of(heldout, UnitLoss::raw), delta);
    if (!has_seen_probe(record.step)) return;  // a gap compares with training samples already seen
    const GapEstimate gap = estimate_gap(scores.heldout, scores.seen, delta);
    record.gap = gap.gap;
    record.gap_low = gap.low;
    record.gap_high = gap.high;
    if (heldout.empty() || seen.empty()) return;  // no document lies whole in a window
    losses_.add(losses_of(heldout, UnitLoss::raw), losses_of(seen, UnitLoss::raw));
    record.heldout_change = losses_.heldout_change(delta);
    record.gap_change = losses_.gap_change(delta);
    record.gap_rise = losses_.gap_rise(delta);
    if (std::isfinite(gap.gap)) record_bounded_gaps(heldout, seen, delta, record);
}

void Generalization::record_bounded_gaps(const std::vector<UnitScores>& heldout,
                                         const std::vector<UnitScores>& seen, double delta,
                                         EvalRecord& record) const {
    for (const UnitLoss loss : all_unit_losses()) {
        const double range = options_.scales.range(loss), least = options_.scales.least(loss);
        std::vector<double> unseen_losses = losses_of(heldout, loss), seen_losses = losses_of(seen, loss);
        if (std::isinf(range) || !bounded_ || unseen_losses.empty() || seen_losses.empty()) continue;
        for (double& value : unseen_losses) value -= least;
        for (double& value : seen_losses) value -= least;
        // A document may read those before it in its window; sequences and examples lie file by file.
        const GapInterval interval = documents_
                                         ? ordered_gap_interval(unseen_losses, seen_losses, range, delta)
                                         : bounded_gap_interval(unseen_losses, seen_losses, range, delta,
                                                                static_cast<u64>(run_.config.run.seed));
        record.gaps[std::string(name_of(loss))] = {interval.gap, interval.low, interval.high};
    }
}

void Generalization::record_certificates(const Scores& scores, EvalRecord& record) const {
    if (!bounded_) return;
    const auto seed = static_cast<u64>(run_.config.run.seed);
    const auto certify = [&](const std::vector<UnitScores>& units) {
        return documents_ ? document_certificates(units, scores.seen.units, options_, record.look)
                          : heldout_certificates(units, options_, record.look, seed);
    };
    // The document that the cut divides was begun in training.
    if (record.heldout_off.empty())
        record.bounds.merge(certify(units_where(scores.heldout, documents_ ? &documents_->heldout : nullptr,
                                                [](const auto& one) { return !one.crosses_cut; })));
    for (auto& [name, bound] :
         certify(comparable_units(scores.unseen, documents_ ? &documents_->unseen : nullptr)))
        record.bounds.emplace(look_ahead_name(name), bound);
}

void Generalization::record_bounds(RoutingMeasure& routing, EvalRecord& record) {
    const std::vector<LayerNormsOfExperts> norms = measure_experts(runtime_);
    record.measured.merge(measures_by_name(routing.finish(), norms));
    if (!bounded_ || !history_.why_order_unknown().empty()) return;  // m is not known
    const auto sequences = static_cast<double>(history_.after(record.step).trained);
    const double units = documents_ ? std::floor(run_.unit.documents_per_sequence * sequences) : sequences;
    const TrainedUnits trained{units, sequences * static_cast<double>(run_.spec.seq_len)};
    const BoundInputs inputs =
        gap_bound_inputs(run_.spec, norms, trained, options_.scales.margin, options_.delta);
    for (const Bound& bound : bound_table()) {
        const bool of_model = bound.kind == BoundKind::gap || bound.kind == BoundKind::trend ||
                              bound.kind == BoundKind::measure;
        if (of_model && bound.name != "momlp_gap"  // of experts at fixed prototypes, which these are not
            && missing_inputs(bound, inputs).empty())
            record.bounds.emplace(bound.name, bound.compute(inputs));
    }
}

Generalization::Scores Generalization::score_shards(i64 step, RoutingObserver& routing,
                                                    HeadComplexity* complexity) {
    const auto evaluate = [&](const std::vector<i64>& windows, bool heldout, RoutingObserver* observer,
                              DocumentUnits Documents::*units, const FeatureVisitor& visitor = {}) {
        return evaluate_windows(runtime_, run_, windows, heldout, observer,
                                documents_ ? &((*documents_).*units) : nullptr, visitor);
    };
    const auto add_features = [&](const MicroBatches::Part& part, const BatchWindows& batch,
                                  const ForwardResult& result, ConstTensorView features) {
        const AddsSeconds watch(extra_seconds_);
        complexity->add(part, batch, result, features);
    };
    const bool holds_out = !shards_.heldout.empty();
    Scores scores;
    scores.heldout = evaluate(shards_.heldout, true, holds_out ? &routing : nullptr, &Documents::heldout);
    scores.seen = evaluate(shards_.seen, false, holds_out ? nullptr : &routing, &Documents::seen,
                           complexity != nullptr ? FeatureVisitor(add_features) : FeatureVisitor());
    const AddsSeconds watch(extra_seconds_);
    if (certifies(step) && history_.why_order_unknown().empty() &&
        history_.after(step).met <= shards_.unseen_after)
        scores.unseen = evaluate(shards_.unseen, false, nullptr, &Documents::unseen);
    return scores;
}

EvalRecord Generalization::look(i64 step, std::optional<i64> number, RoutingObserver* observer) {
    const bool holds_out = !shards_.heldout.empty();
    const bool tells_domains = holds_out && run_.dataset->domains().size() > 1;
    DomainRouting domain_routing(runtime_, observer, tells_domains ? std::ssize(shards_.heldout) : 0);
    RoutingMeasure routing(runtime_, &domain_routing);
    std::optional<HeadComplexity> complexity;
    if (certifies(step) && HeadComplexity::applies(run_.spec) && !shards_.seen.empty())
        complexity.emplace(runtime_, run_, shards_.seen);
    TimedObserver timed(routing, extra_seconds_);
    const Scores scores = score_shards(step, timed, complexity ? &*complexity : nullptr);
    const AddsSeconds watch(extra_seconds_);
    EvalRecord record;
    record.step = step;
    record.unit = run_.unit.name;
    record.look = number;
    record.train_probe_loss = scores.seen.mean_loss();
    record.train_probe_error = scores.seen.mean_error();
    if (has_seen_probe(step)) record.train_probe_age = step - shards_.seen_at_step;
    if (!scores.unseen.units.empty()) {
        record.train_unseen_loss = scores.unseen.mean_loss();
        record.train_unseen_error = scores.unseen.mean_error();
    }
    record_shard("heldout", scores.heldout, record);
    record_shard("train_seen", scores.seen, record);
    record_shard("train_unseen", scores.unseen, record);
    record.prequential_off = off_;
    if (holds_out) record.heldout_off = history_.why_not_held_out();
    record.seen_off = history_.why_order_unknown();
    record.bounds = prequential_bounds(step);
    if (holds_out) {
        record.heldout_loss = scores.heldout.mean_loss();
        record.heldout_error = scores.heldout.mean_error();
        if (scores.heldout.measure == SampleError::any_wrong)
            record.heldout_target_error = scores.heldout.mean_share_wrong();
        domains_ = scores_by_domain(*run_.dataset, shards_.heldout, scores.heldout);
        for (const DomainScore& score : domains_) record.heldout_by_source[score.name] = score.loss;
    }
    if (certifies(step)) {
        record_gap(scores, record);
        record_certificates(scores, record);
    }
    record.domain_experts =
        domain_routing.finish(*run_.dataset, shards_.heldout, static_cast<u64>(run_.config.run.seed));
    record_bounds(routing, record);
    if (complexity) record.measured["head_complexity"] = {complexity->finish()};
    if (run_.config.task.data.random_labels) {
        const auto classes = static_cast<double>(run_.spec.head_outputs());
        record.measured["random_label_fit"] = {1 - scores.seen.mean_error() * classes / (classes - 1)};
    }
    record.meaning = explain(record, options_.delta, history_.recorded());
    return record;
}

EvalRecord Generalization::evaluate(i64 step, RoutingObserver* observer) {
    if (!certifies(step)) return look(step, {}, observer);
    look_step_ = step;
    return look(step, ++looks_, observer);
}

EvalRecord Generalization::evaluate_again(const TrainingPosition& position, bool as_in_run) {
    const auto stored = position.observers.find(kLookStep);
    const bool looked = stored != position.observers.end() &&
                        stored->second == std::vector{static_cast<double>(position.step)};
    return look(position.step, looked && as_in_run ? std::optional(looks_) : std::nullopt, nullptr);
}

}  // namespace moesaic
