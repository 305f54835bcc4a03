#include "runtime/metrics/certificates.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/base/philox.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/test_set.h"

namespace moesaic {

namespace {

constexpr CertifiedLoss kCertified[] = {{UnitLoss::error, ""}, {UnitLoss::smoothed_bits, "_bits"}};

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

std::span<const CertifiedLoss> certified_losses() {
    return kCertified;
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
    const auto count = static_cast<double>(
        std::count_if(units.begin(), units.end(), [](const UnitScores& unit) { return unit.targets > 0; }));
    units_ += count;
    for (std::size_t i = 0; i < losses_.size(); ++i) {
        double sum = 0, squares = 0;
        for (const UnitScores& unit : units) {
            if (unit.targets == 0) continue;
            const double loss = options_.scales.to_unit(kCertified[i].loss, unit.of(kCertified[i].loss));
            sum += loss;
            squares += loss * loss;
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
            .assume(
                "random_order", AssumptionStatus::holds,
                "units come in a random order: the statement is about the part of the data that was not yet "
                "met, without duplicates")
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

std::map<std::string, BoundResult> heldout_certificates(std::span<const UnitScores> units,
                                                        const CertificateOptions& options, double look,
                                                        u64 seed) {
    std::map<std::string, BoundResult> bounds;
    std::vector<const UnitScores*> order;
    for (const UnitScores& unit : units) {
        if (unit.targets > 0) order.push_back(&unit);
        if (unit.targets > 0 && !std::isfinite(unit.of(UnitLoss::raw))) return bounds;
    }
    if (order.empty()) return bounds;
    const Philox random(seed, "order of the held-out units");
    for (std::size_t i = order.size() - 1; i > 0; --i) {
        const auto other = static_cast<std::size_t>(random.uniform(i) * static_cast<double>(i + 1));
        std::swap(order[i], order[std::min(other, i)]);
    }
    const double delta = delta_of_look(options.delta, look), samples = static_cast<double>(order.size());
    for (const CertifiedLoss& certified : kCertified) {
        std::vector<double> losses;
        double sum = 0;
        for (const UnitScores* unit : order) {
            losses.push_back(options.scales.to_unit(certified.loss, unit->of(certified.loss)));
            sum += losses.back();
        }
        const bool exact = certified.loss == UnitLoss::error && options.exact_errors;
        const double upper =
            exact ? clopper_pearson_upper(std::round(sum), samples, delta) : betting_upper(losses, delta);
        BoundResult result = in_own_units(certified.loss, options.scales, sum / samples, upper);
        result.details.add("units", samples);
        result.details.add("delta", delta);
        result.assume_independent_samples().assume(
            "untouched", AssumptionStatus::unknown,
            "no update saw these units and no setting was chosen by them; choosing among the looks of a run "
            "is paid for, by delta/(t(t+1)) at look t");
        bounds.emplace(name_for("heldout", certified), std::move(result));
    }
    return bounds;
}

}  // namespace moesaic
