#include "runtime/metrics/paired_change.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

struct Moments {
    double mean = 0, variance_of_mean = 0;
};

Moments moments_of(std::span<const double> values) {
    Moments moments;
    if (values.empty()) return moments;
    const auto count = static_cast<double>(values.size());
    for (const double value : values) moments.mean += value / count;
    if (values.size() < 2) return {moments.mean, std::numeric_limits<double>::infinity()};
    for (const double value : values)
        moments.variance_of_mean += (value - moments.mean) * (value - moments.mean) / (count - 1) / count;
    return moments;
}

}  // namespace

double two_sided_quantile(double delta) {
    double low = 0, high = 40;  // bisection on the complementary error function
    for (int i = 0; i < 200; ++i) {
        const double middle = 0.5 * (low + high);
        (std::erfc(middle / std::numbers::sqrt2) > delta ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

IntervalRecord mean_difference(std::span<const double> values, std::span<const double> others, double delta) {
    const Moments first = moments_of(values), second = moments_of(others);
    const double difference = first.mean - second.mean;
    const double half =
        two_sided_quantile(delta) * std::sqrt(first.variance_of_mean + second.variance_of_mean);
    return {difference, difference - half, difference + half};
}

void LossHistory::add(std::span<const double> heldout, std::span<const double> seen) {
    MOESAIC_ASSERT(
        heldout_.empty() || (heldout_.back().size() == heldout.size() && seen_.back().size() == seen.size()),
        "{} held-out units, {} seen ones: not those of the evaluation before", heldout.size(), seen.size());
    heldout_.emplace_back(heldout.begin(), heldout.end());
    seen_.emplace_back(seen.begin(), seen.end());
    if (heldout_.size() <= most_) return;
    heldout_.pop_front();
    seen_.pop_front();
}

std::vector<double> LossHistory::change(const Losses& losses) {
    std::vector<double> change(losses.back().size());
    const std::vector<double>& before = losses[losses.size() - 2];
    for (std::size_t i = 0; i < change.size(); ++i) change[i] = losses.back()[i] - before[i];
    return change;
}

std::vector<double> LossHistory::rise(const Losses& losses) {
    const auto count = static_cast<double>(losses.size());
    const double middle = (count - 1) / 2;
    const double squares = count * (count * count - 1) / 12;  // sum of (t - middle)^2
    std::vector<double> rise(losses.back().size(), 0.0);
    for (std::size_t t = 0; t < losses.size(); ++t) {
        const double factor = (static_cast<double>(t) - middle) / squares * (count - 1);
        for (std::size_t i = 0; i < rise.size(); ++i) rise[i] += factor * losses[t][i];
    }
    return rise;
}

std::optional<IntervalRecord> LossHistory::heldout_change(double delta) const {
    if (heldout_.size() < 2) return {};
    return mean_difference(change(heldout_), {}, delta);
}

std::optional<IntervalRecord> LossHistory::gap_change(double delta) const {
    if (heldout_.size() < 2) return {};
    return mean_difference(change(heldout_), change(seen_), delta);
}

std::optional<IntervalRecord> LossHistory::gap_rise(double delta) const {
    if (heldout_.size() < most_) return {};
    return mean_difference(rise(heldout_), rise(seen_), delta);
}

}  // namespace moesaic
