#include "runtime/metrics/bounds/test_set.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/fresh_data.h"

namespace moesaic {

namespace {

BoundResult with_test_set_assumptions(BoundResult result) {
    result.assume_independent_samples().assume(
        "untouched", AssumptionStatus::unknown,
        "no decision about the model was made on these units, or delta was divided over the looks");
    return result;
}

constexpr double kMostOfTheStake = 0.95;

/// Of betting_upper: sum over i of ln(1 + lambda_i (mean - x_i)), mean in [0, 1]. Every look takes some dozen
/// limits from it: factors, which are at least 0.05, are multiplied before a logarithm is taken.
double log_of_capital(std::span<const double> losses, std::span<const double> stakes, double mean) {
    constexpr std::size_t kLanes = 8, kFactors = 8;  // of a lane, before its logarithm
    const double most = kMostOfTheStake / (1 - mean);
    const auto factor = [&](std::size_t i) { return 1 + std::min(stakes[i], most) * (mean - losses[i]); };
    double nats = 0;
    std::size_t i = 0;
    while (i + kLanes <= losses.size()) {
        std::array<double, kLanes> products;
        products.fill(1);
        const std::size_t rows = std::min(kFactors, (losses.size() - i) / kLanes);
        for (std::size_t row = 0; row < rows; ++row, i += kLanes) {
            for (std::size_t lane = 0; lane < kLanes; ++lane) products[lane] *= factor(i + lane);
        }
        for (const double product : products) nats += std::log(product);
    }
    for (; i < losses.size(); ++i) nats += std::log(factor(i));
    return nats;
}

/// The plug-in lambdas of betting_upper, of the losses and of one minus each alike.
std::vector<double> betting_stakes(std::span<const double> losses, double delta) {
    const double nats = -std::log(delta), planned = static_cast<double>(losses.size());
    std::vector<double> stakes(losses.size());
    double sum = 0.5, squares = 0.25, seen = 1;  // as if one loss of 1/2 had been seen before
    for (std::size_t i = 0; i < losses.size(); ++i) {
        stakes[i] = std::sqrt(2 * nats * seen / (planned * squares));
        sum += losses[i];
        const double mean = sum / ++seen;
        squares += (losses[i] - mean) * (losses[i] - mean);
    }
    return stakes;
}

/// Where the growing function changes its sign, and its values there.
struct Bracket {
    double low = 0, high = 1, at_low = 0, at_high = 0;
    [[nodiscard]] bool holds_root() const { return at_low < 0 && at_high >= 0; }
};

/// A narrow bracket around a guess where that is a good one; else [0, 1].
template <class Function>
Bracket bracket_of(const Function& function, double guess, double slope) {
    if (guess > 0 && guess < 1 && slope > 0) {
        const double at_guess = function(guess);
        // Half as far again as Newton's step, so that the root lies between.
        const double other = std::clamp(guess - 1.5 * at_guess / slope, 0.0, 1.0), at_other = function(other);
        const Bracket bracket = at_guess < 0 ? Bracket{guess, other, at_guess, at_other}
                                             : Bracket{other, guess, at_other, at_guess};
        if (bracket.holds_root()) return bracket;
    }
    return {0, 1, function(0), function(1)};
}

/// A point in [0, 1] where the growing function is not negative, at most 1e-12 above the least one; 1 where
/// there is none. The Illinois method (regula falsi that halves the value of an end that stays), each point
/// beside its estimate so that both ends come near. Of its dozen evaluations a good `guess` of the root and
/// `slope` there leave 5 to 8.
template <class Function>
double least_root(const Function& function, double guess, double slope) {
    constexpr double kWidth = 1e-12;
    auto [low, high, at_low, at_high] = bracket_of(function, guess, slope);
    if (!(at_high >= 0)) return 1;  // nor is there one for losses that are no numbers
    if (at_low >= 0) return 0;
    for (int last = 0, i = 0; high - low > kWidth && i < 100; ++i) {
        const double estimate =
            i % 4 == 3 ? 0.5 * (low + high) : low + (high - low) * at_low / (at_low - at_high);
        const double point = std::clamp(estimate + (last < 0 ? 0.4 : -0.4) * kWidth, low, high);
        const double value = function(point);
        const int side = value < 0 ? -1 : 1;
        (side < 0 ? low : high) = point;
        (side < 0 ? at_low : at_high) = value;
        if (side == last) (side < 0 ? at_high : at_low) *= 0.5;
        last = side;
    }
    return high;
}

double betting_upper_with(std::span<const double> losses, std::span<const double> stakes, double delta) {
    // The capital's logarithm to second order: linear * mean - curvature mean^2 / 2 - constant.
    double linear = 0, curvature = 0, constant = -std::log(delta);
    for (std::size_t i = 0; i < losses.size(); ++i) {
        const double square = stakes[i] * stakes[i], weighted = stakes[i] + square * losses[i];
        linear += weighted;
        curvature += square;
        constant += 0.5 * (stakes[i] + weighted) * losses[i];
    }
    const double slope = std::sqrt(linear * linear - 2 * curvature * constant);
    return least_root([&](double mean) { return log_of_capital(losses, stakes, mean) + std::log(delta); },
                      (linear - slope) / curvature, slope);
}

std::vector<double> scaled_by(std::span<const double> losses, double range) {
    std::vector<double> scaled(losses.begin(), losses.end());
    for (double& loss : scaled) loss /= range;
    return scaled;
}

std::vector<double> mirrored(std::span<const double> losses) {
    std::vector<double> others(losses.begin(), losses.end());
    for (double& loss : others) loss = 1 - loss;
    return others;
}

double mean_of(std::span<const double> losses) {
    return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

/// A shard's mean with its limits, all in [0, 1].
struct Side {
    double mean = 0, low = 0, high = 0;
};
GapInterval interval_of(const Side& heldout, const Side& train, double range) {
    return {range * (heldout.mean - train.mean), range * (heldout.low - train.high),
            range * (heldout.high - train.low)};
}

}  // namespace

BoundResult hoeffding_bound(const HeldoutLosses& input) {
    const double slack = confidence_term(input.range, 1, input.delta, input.samples);
    return with_test_set_assumptions(risk_bound(input.mean, input.mean + slack, input.range));
}

BoundResult heldout_kl_bound(const HeldoutLosses& input) {
    const double upper = kl_inverse(input.mean / input.range, -std::log(input.delta) / input.samples);
    return with_test_set_assumptions(risk_bound(input.mean, input.range * upper, input.range));
}

BoundResult empirical_bernstein_bound(const HeldoutLosses& input) {
    MOESAIC_ASSERT(input.samples >= 2 && input.variance >= 0, "{} samples, variance {}", input.samples,
                   input.variance);
    const double nats = std::log(2 / input.delta);
    BoundTerms terms;
    terms.add("empirical", input.mean);
    terms.add("variance", std::sqrt(2 * input.variance * nats / input.samples));
    terms.add("range", 7 * input.range * nats / (3 * (input.samples - 1)));
    return with_test_set_assumptions(sum_of_terms(std::move(terms), input.range));
}

BoundResult clopper_pearson_bound(double errors, double samples, double delta) {
    return with_test_set_assumptions(
        risk_bound(errors / samples, clopper_pearson_upper(errors, samples, delta), 1));
}

double hoeffding_half_width(double samples, double range, double delta) {
    return confidence_term(range, 2, delta, samples);
}

double delta_of_look(double delta, double look) {
    MOESAIC_ASSERT(look >= 1, "look {}", look);
    return delta / (look * (look + 1));
}

double plug_in_bernstein_upper(std::span<const double> losses, double delta) {
    MOESAIC_ASSERT(!losses.empty(), "delta {}, no losses", delta);
    const double nats = -std::log(delta), planned = static_cast<double>(losses.size());
    double mean = 0.5, sum = 0.5, squares = 0.25, seen = 1;  // as if one loss of 1/2 had been seen before
    double weighted = 0, weights = 0, penalty = 0;
    for (const double loss : losses) {
        const double lambda = std::min(0.5, std::sqrt(2 * nats * seen / (planned * squares)));
        penalty += bernstein_psi(lambda) * (loss - mean) * (loss - mean);
        weighted += lambda * loss;
        weights += lambda;
        sum += loss;
        mean = sum / ++seen;
        squares += (loss - mean) * (loss - mean);
    }
    return std::min(1.0, (weighted + nats + penalty) / weights);
}

double ordered_bernstein_upper(std::span<const double> losses, double lambda, double delta) {
    MOESAIC_ASSERT(!losses.empty() && lambda > 0 && lambda < 1, "{} losses, lambda {}", losses.size(),
                   lambda);
    double mean = 0.5, sum = 0.5, seen = 1;  // as if one loss of 1/2 had been seen before
    double total = 0, squares = 0;
    for (const double loss : losses) {
        squares += (loss - mean) * (loss - mean);
        total += loss;
        sum += loss;
        mean = sum / ++seen;
    }
    const auto count = static_cast<double>(losses.size());
    return std::min(1.0,
                    total / count + (bernstein_psi(lambda) * squares - std::log(delta)) / (count * lambda));
}

double betting_upper(std::span<const double> losses, double delta) {
    MOESAIC_ASSERT(!losses.empty(), "delta {}, no losses", delta);
    return betting_upper_with(losses, betting_stakes(losses, delta), delta);
}

std::vector<std::size_t> random_order(std::size_t count, u64 seed, std::string_view name) {
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    const Philox random(seed, name);
    for (std::size_t i = count; i-- > 1;) {
        const auto other = static_cast<std::size_t>(random.uniform(i) * static_cast<double>(i + 1));
        std::swap(order[i], order[std::min(other, i)]);
    }
    return order;
}

GapInterval bounded_gap_interval(std::span<const double> heldout, std::span<const double> train, double range,
                                 double delta, u64 seed) {
    const auto side = [&](std::span<const double> losses, std::string_view name) {
        std::vector<double> shuffled;
        for (const std::size_t place : random_order(losses.size(), seed, name))
            shuffled.push_back(losses[place] / range);
        const std::vector<double> stakes = betting_stakes(shuffled, delta / 4);
        return Side{mean_of(shuffled), 1 - betting_upper_with(mirrored(shuffled), stakes, delta / 4),
                    betting_upper_with(shuffled, stakes, delta / 4)};
    };
    return interval_of(side(heldout, "held-out losses of a gap"), side(train, "training losses of a gap"),
                       range);
}

GapInterval ordered_gap_interval(std::span<const double> heldout, std::span<const double> train, double range,
                                 double delta) {
    const std::vector<double> unseen = scaled_by(heldout, range), seen = scaled_by(train, range);
    const auto side = [&](const std::vector<double>& losses, const std::vector<double>& others) {
        const double lambda =
            bernstein_lambda(variance_of(others), static_cast<double>(losses.size()), delta / 4);
        return Side{mean_of(losses), 1 - ordered_bernstein_upper(mirrored(losses), lambda, delta / 4),
                    ordered_bernstein_upper(losses, lambda, delta / 4)};
    };
    return interval_of(side(unseen, seen), side(seen, unseen), range);
}

double variance_of(std::span<const double> losses) {
    if (losses.size() < 2) return 0.25;
    const double mean = mean_of(losses);
    double squares = 0;
    for (const double loss : losses) squares += (loss - mean) * (loss - mean);
    return squares / static_cast<double>(losses.size() - 1);
}

}  // namespace moesaic
