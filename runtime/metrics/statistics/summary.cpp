#include "runtime/metrics/statistics/summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"

namespace moesaic {

namespace {

/// The continued fraction of the incomplete beta function. Source: DLMF 8.17.22.
double beta_fraction(double x, double a, double b) {
    constexpr double kTiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (std::abs(d) < kTiny ? kTiny : d);
    double value = d;
    for (int i = 1; i < 10000; ++i) {
        const double m = i;
        for (const double term : {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                                  -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))}) {
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (std::abs(d) < kTiny ? kTiny : d);
            if (std::abs(c) < kTiny) c = kTiny;
            value *= c * d;
        }
        if (std::abs(c * d - 1) < 1e-15) break;
    }
    return value;
}

}  // namespace

double mean_of(std::span<const double> values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation_of(std::span<const double> values) {
    if (values.size() < 2) return 0;
    const double mean = mean_of(values);
    double sum = 0;
    for (const double value : values) sum += (value - mean) * (value - mean);
    return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double quantile_of(std::vector<double> values, double q) {
    MOESAIC_ASSERT(!values.empty() && q >= 0 && q <= 1, "{} values, q {}", values.size(), q);
    std::ranges::sort(values);
    const double at = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

std::vector<double> ranks_of(std::span<const double> values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return values[i]; });
    std::vector<double> ranks(values.size());
    for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
        while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
        for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end + 1) / 2;
    }
    return ranks;
}

double spearman(std::span<const double> left, std::span<const double> right) {
    MOESAIC_ASSERT(left.size() == right.size(), "{} against {} values", left.size(), right.size());
    const std::vector<double> x = ranks_of(left), y = ranks_of(right);
    const double middle = (static_cast<double>(x.size()) + 1) / 2;
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        xy += (x[i] - middle) * (y[i] - middle);
        xx += (x[i] - middle) * (x[i] - middle);
        yy += (y[i] - middle) * (y[i] - middle);
    }
    return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : std::numeric_limits<double>::quiet_NaN();
}

double spearman_chance(std::span<const double> left, std::span<const double> right) {
    constexpr std::size_t kMostEnumerated = 8;
    constexpr u64 kDraws = 100000;
    const std::vector<double> x = ranks_of(left);
    std::vector<double> y = ranks_of(right);
    const auto product = [&] { return std::inner_product(x.begin(), x.end(), y.begin(), 0.0); };
    const double wanted = product() - 1e-9;  // ranks are halves of whole numbers
    if (x.size() <= kMostEnumerated) {
        // Equal ranks: each distinct order stands for equally many.
        u64 orders = 0, as_high = 0;
        std::ranges::sort(y);
        do {
            ++orders;
            as_high += product() >= wanted;
        } while (std::ranges::next_permutation(y).found);
        return static_cast<double>(as_high) / static_cast<double>(orders);
    }
    const Philox random(1, "pairings of ranks");
    u64 counter = 0, as_high = 0;
    for (u64 draw = 0; draw < kDraws; ++draw) {
        for (std::size_t i = y.size() - 1; i > 0; --i)
            std::swap(y[i],
                      y[static_cast<std::size_t>(random.uniform(counter++) * static_cast<double>(i + 1))]);
        as_high += product() >= wanted;
    }
    return static_cast<double>(as_high + 1) / static_cast<double>(kDraws + 1);
}

double incomplete_beta(double x, double a, double b) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const double front =
        std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a
                                     : 1 - front * beta_fraction(1 - x, b, a) / b;
}

double student_cdf(double t, double degrees) {
    const double tail = incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2;
    return t > 0 ? 1 - tail : tail;
}

double student_quantile(double probability, double degrees) {
    MOESAIC_ASSERT(probability > 0 && probability < 1, "probability {}", probability);
    double low = -1, high = 1;
    while (student_cdf(low, degrees) > probability) low *= 2;
    while (student_cdf(high, degrees) < probability) high *= 2;
    for (int i = 0; i < 200 && high - low > 1e-14 * std::max(1.0, std::abs(low)); ++i) {
        const double middle = (low + high) / 2;
        (student_cdf(middle, degrees) < probability ? low : high) = middle;
    }
    return (low + high) / 2;
}

PairedTest paired_test(std::span<const double> first, std::span<const double> second, double alpha) {
    MOESAIC_ASSERT(first.size() == second.size() && !first.empty(), "{} against {} values", first.size(),
                   second.size());
    std::vector<double> differences;
    for (std::size_t i = 0; i < first.size(); ++i) differences.push_back(first[i] - second[i]);
    PairedTest test;
    test.pairs = static_cast<i64>(differences.size());
    test.difference = mean_of(differences);
    const auto pairs = static_cast<double>(test.pairs);
    if (test.pairs < 2) {
        test.high = test.smallest_detectable = std::numeric_limits<double>::infinity();
        test.low = -test.high;
        return test;
    }
    const double error = deviation_of(differences) / std::sqrt(pairs);
    const double t = student_quantile(1 - alpha / 2, pairs - 1);
    test.low = test.difference - t * error;
    test.high = test.difference + t * error;
    test.smallest_detectable = (t + student_quantile(0.8, pairs - 1)) * error;
    if (error > 0)
        test.p = 2 * student_cdf(-std::abs(test.difference) / error, pairs - 1);
    else
        test.p = test.difference == 0 ? 1 : 0;
    return test;
}

}  // namespace moesaic
