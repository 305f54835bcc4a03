#include "runtime/metrics/certificates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/test_set.h"

namespace moesaic {

namespace {

constexpr std::array<CertifiedLoss, kCertifiedLosses> kCertified{
    {{UnitLoss::error, ""}, {UnitLoss::smoothed_bits, "_bits"}}};

std::string name_for(std::string_view certificate, const CertifiedLoss& certified) {
    return std::string(certificate) + std::string(certified.suffix);
}

/// The members of a FreshDataState in one order, for storing and restoring.
template <class State, class Visitor>
void for_each_number(State& state, Visitor&& visit) {
    for (auto* number : {&state.past_count, &state.past_sum, &state.past_squares, &state.window,
                         &state.opened_at, &state.lambda, &state.window_delta, &state.count, &state.sum,
                         &state.squares, &state.deviations, &state.center, &state.previous.upper,
                         &state.previous.mean, &state.previous.count, &state.previous.window})
        visit(*number);
}

constexpr const char* kSequencesOfText =
    "windows of a text are taken as independent draws, though neighbours may be of one document "
    "(generalization.unit)";

/// Of units with targets, in [0, 1].
std::vector<double> losses_in_unit(std::span<const UnitScores> units, const CertifiedLoss& certified,
                                   const CertificateOptions& options) {
    std::vector<double> losses;
    for (const UnitScores& unit : units) {
        if (unit.targets > 0)
            losses.push_back(options.scales.to_unit(certified.loss, unit.of(certified.loss)));
    }
    return losses;
}

BoundResult heldout_bound(const CertifiedLoss& certified, const CertificateOptions& options,
                          const std::vector<double>& losses, double upper, double delta) {
    const auto count = static_cast<double>(losses.size());
    const double mean = std::accumulate(losses.begin(), losses.end(), 0.0) / count;
    BoundResult result = in_own_units(certified.loss, options.scales, mean, upper);
    result.details.add("units", count);
    result.details.add("delta", delta);
    return result;
}

BoundResult untouched(BoundResult result, const CertificateOptions& options, bool of_run) {
    std::string meaning =
        of_run ? "no update saw these units and no setting was chosen by them; choosing among the "
                 "looks of a run is paid for, by delta/(t(t+1)) at look t"
               : "no update saw these units, and neither a setting nor this checkpoint was chosen "
                 "by them; the statement stands by itself, and no other is paid for with it";
    if (!options.recorded) meaning += "; what the weights were trained on is not all on record";
    result.assume("untouched", AssumptionStatus::unknown, std::move(meaning));
    return result;
}

/// Windows that open within `units` where steps bring `of_step` each: FreshDataCertificate's rule.
double count_windows(double units, double of_step, double first_window) {
    double opened = std::ceil(first_window / of_step) * of_step, windows = 0;
    while (opened < units) {
        ++windows;
        opened = std::ceil(2 * opened / of_step) * of_step;
    }
    return windows;
}

}  // namespace

std::span<const CertifiedLoss, kCertifiedLosses> certified_losses() {
    return kCertified;
}

void UnitSums::add(const UnitScores& unit, const LossScales& scales) {
    if (unit.targets == 0) return;
    ++units;
    for (std::size_t i = 0; i < kCertified.size(); ++i) {
        const double loss = scales.to_unit(kCertified[i].loss, unit.of(kCertified[i].loss));
        sum[i] += loss;
        squares[i] += loss * loss;
    }
}

BoundResult in_own_units(UnitLoss loss, const LossScales& scales, double mean, double upper) {
    const double empirical = scales.from_unit(loss, mean), value = scales.from_unit(loss, upper);
    BoundResult result = risk_bound(empirical, value, scales.least(loss) + scales.range(loss));
    result.details.add("range", scales.range(loss));
    return result;
}

PrequentialCertificate::PrequentialCertificate(const CertificateOptions& options, double epoch_units,
                                               double units_of_step)
    : options_(options) {
    FreshDataOptions fresh;
    fresh.delta = options.delta;
    const double windows = count_windows(epoch_units, units_of_step, fresh.first_window);
    if (windows > 0) fresh.planned_windows = windows;
    for (const CertifiedLoss& certified : kCertified) {
        if (certified.loss == UnitLoss::error && options.exact_errors)
            losses_.push_back(std::make_unique<CatoniCertificate>(fresh));
        else
            losses_.push_back(std::make_unique<BernsteinCertificate>(fresh));
    }
}

void PrequentialCertificate::add(std::span<const UnitScores> units) {
    std::vector<UnitSums> sequences(units.size());
    for (std::size_t i = 0; i < units.size(); ++i) sequences[i].add(units[i], options_.scales);
    add(sequences);
}

void PrequentialCertificate::add(std::span<const UnitSums> sequences) {
    double count = 0;
    for (const UnitSums& sequence : sequences) count += sequence.units;
    units_ += count;
    for (std::size_t i = 0; i < losses_.size(); ++i) {
        double sum = 0, squares = 0;
        for (const UnitSums& sequence : sequences) {
            sum += sequence.sum[i];
            squares += sequence.squares[i];
        }
        losses_[i]->add(count, sum, squares);
    }
}

std::map<std::string, BoundResult> PrequentialCertificate::bounds() const {
    std::map<std::string, BoundResult> bounds;
    for (std::size_t i = 0; i < losses_.size(); ++i) {
        const FreshDataBound bound = losses_[i]->bound();
        if (bound.window == 0 || bound.count == 0) continue;
        BoundResult result =
            in_own_units(kCertified[i].loss, options_.scales, bound.mean, std::min(1.0, bound.upper));
        result.details.add("units", bound.count);
        result.details.add("window", bound.window);
        result
            .assume("fresh", options_.from_scratch ? AssumptionStatus::holds : AssumptionStatus::unknown,
                    "each unit's loss was taken before any update had seen it, in a forward pass that is "
                    "that of evaluation; nor had the weights that the run began with")
            .assume("random_order", AssumptionStatus::holds,
                    options_.documents ? "windows come in a random order, and a document counts where "
                                         "training meets it first: the "
                                         "statement is about documents that were not yet met, of these "
                                         "lengths, without duplicates"
                                       : "units come in a random order: the statement is about the part of "
                                         "the data that was not "
                                         "yet met, without duplicates")
            .assume("window_average", AssumptionStatus::holds,
                    "the statement is about the average of the models in the window, and holds at all steps "
                    "at once");
        bounds.emplace(name_for("prequential", kCertified[i]), std::move(result));
    }
    return bounds;
}

std::vector<double> PrequentialCertificate::state() const {
    std::vector<double> numbers{units_};
    for (const auto& loss : losses_) {
        const FreshDataState& state = loss->state();
        for_each_number(state, [&](double number) { numbers.push_back(number); });
    }
    return numbers;
}

bool PrequentialCertificate::restore(std::span<const double> numbers) {
    std::vector<FreshDataState> states(losses_.size());
    std::size_t at = 0;
    const auto next = [&] { return at < numbers.size() ? numbers[at++] : (++at, 0.0); };
    const double units = next();
    for (FreshDataState& state : states) for_each_number(state, [&](double& number) { number = next(); });
    if (at != numbers.size()) return false;
    units_ = units;
    for (std::size_t i = 0; i < states.size(); ++i) losses_[i]->restore(states[i]);
    return true;
}

double delta_of_statement(double delta, std::optional<i64> look) {
    return look ? delta_of_look(delta, static_cast<double>(*look)) : delta;
}

std::map<std::string, BoundResult> heldout_certificates(std::span<const UnitScores> units,
                                                        const CertificateOptions& options,
                                                        std::optional<i64> look, u64 seed) {
    std::map<std::string, BoundResult> bounds;
    std::vector<const UnitScores*> counted;
    for (const UnitScores& unit : units) {
        if (unit.targets > 0) counted.push_back(&unit);
        if (unit.targets > 0 && !std::isfinite(unit.of(UnitLoss::raw))) return bounds;
    }
    if (counted.empty()) return bounds;
    const std::vector<std::size_t> order = random_order(counted.size(), seed, "order of the held-out units");
    const double delta = delta_of_statement(options.delta, look), samples = static_cast<double>(order.size());
    for (const CertifiedLoss& certified : kCertified) {
        std::vector<double> losses;
        for (const std::size_t place : order)
            losses.push_back(options.scales.to_unit(certified.loss, counted[place]->of(certified.loss)));
        const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
        const bool exact = certified.loss == UnitLoss::error && options.exact_errors;
        const double upper =
            exact ? clopper_pearson_upper(std::round(sum), samples, delta) : betting_upper(losses, delta);
        BoundResult result = heldout_bound(certified, options, losses, upper, delta);
        if (options.text) {
            result.assume("independent_samples", AssumptionStatus::unknown, kSequencesOfText);
        } else {
            result.assume_independent_samples();
        }
        bounds.emplace(name_for("heldout", certified),
                       untouched(std::move(result), options, look.has_value()));
    }
    return bounds;
}

std::map<std::string, BoundResult> document_certificates(std::span<const UnitScores> documents,
                                                         std::span<const UnitScores> reference,
                                                         const CertificateOptions& options,
                                                         std::optional<i64> look) {
    std::map<std::string, BoundResult> bounds;
    const double delta = delta_of_statement(options.delta, look);
    for (const CertifiedLoss& certified : kCertified) {
        const std::vector<double> losses = losses_in_unit(documents, certified, options),
                                  others = losses_in_unit(reference, certified, options);
        if (losses.empty() ||
            !std::all_of(losses.begin(), losses.end(), [](double x) { return std::isfinite(x); }))
            return {};
        const double lambda =
            bernstein_lambda(variance_of(others), static_cast<double>(losses.size()), delta);
        const double upper = ordered_bernstein_upper(losses, lambda, delta);
        BoundResult result = heldout_bound(certified, options, losses, upper, delta);
        result.details.add("lambda", lambda);
        result.assume(
            "independent_samples", AssumptionStatus::unknown,
            "documents are drawn independently; one may read those before it in its window, and the "
            "statement is about new documents in these places");
        bounds.emplace(name_for("heldout", certified),
                       untouched(std::move(result), options, look.has_value()));
    }
    return bounds;
}

}  // namespace moesaic
