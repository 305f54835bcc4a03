#include "runtime/metrics/statistics/convex_hull.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "runtime/base/error.h"
#include "runtime/metrics/statistics/fits.h"

namespace moesaic {

namespace {

using Vector = std::vector<double>;

constexpr double kTolerance = 1e-6;

/// target - sum of weight times column.
Vector residual_of(const std::vector<Vector>& columns, const Vector& weights, Vector target) {
    for (std::size_t j = 0; j < columns.size(); ++j)
        for (std::size_t i = 0; i < target.size(); ++i) target[i] -= weights[j] * columns[j][i];
    return target;
}

double dot(const Vector& left, const Vector& right) {
    return std::inner_product(left.begin(), left.end(), right.begin(), 0.0);
}

/// Unconstrained weights of the columns in `chosen`.
std::optional<Vector> weights_of(const std::vector<Vector>& columns, const std::vector<std::size_t>& chosen,
                                 const Vector& target) {
    std::vector<Vector> rows(target.size());
    for (std::size_t i = 0; i < target.size(); ++i)
        for (const std::size_t j : chosen) rows[i].push_back(columns[j][i]);
    auto fit = least_squares(rows, target);
    return fit ? std::optional(std::move(fit->coefficients)) : std::nullopt;
}

/// Moves from feasible `weights` to those of least squares over `chosen`; whatever reaches 0 first leaves the
/// choice.
bool settle(const std::vector<Vector>& columns, const Vector& target, std::vector<std::size_t>& chosen,
            Vector& weights) {
    while (!chosen.empty()) {
        const auto wanted = weights_of(columns, chosen, target);
        if (!wanted) return false;
        double step = 1;
        for (std::size_t c = 0; c < chosen.size(); ++c)
            if (const double now = weights[chosen[c]]; (*wanted)[c] <= 0)
                step = std::min(step, now / (now - (*wanted)[c]));
        for (std::size_t c = 0; c < chosen.size(); ++c)
            weights[chosen[c]] += step * ((*wanted)[c] - weights[chosen[c]]);
        const bool arrived = std::ranges::all_of(*wanted, [](double weight) { return weight > 0; });
        if (arrived) return true;
        std::erase_if(chosen, [&](std::size_t j) {
            if (weights[j] > 1e-14) return false;
            weights[j] = 0;
            return true;
        });
    }
    return true;
}

}  // namespace

bool in_convex_hull(const std::vector<Vector>& points, const Vector& at) {
    // Columns (x - at, 1) that are to add up to (0, 1), every axis in units of its largest distance.
    std::vector<Vector> columns(points.size(), Vector(at.size() + 1, 1.0));
    for (std::size_t i = 0; i < at.size(); ++i) {
        double unit = 0;
        for (const Vector& point : points) unit = std::max(unit, std::abs(point[i] - at[i]));
        for (std::size_t j = 0; j < points.size(); ++j)
            columns[j][i] = unit > 0 ? (points[j][i] - at[i]) / unit : 0;
    }
    Vector target(at.size() + 1, 0.0), weights(points.size(), 0.0);
    target.back() = 1;
    std::vector<std::size_t> chosen;
    for (std::size_t round = 0; round < 3 * points.size() + 10; ++round) {
        const Vector left = residual_of(columns, weights, target);
        if (std::sqrt(dot(left, left)) < kTolerance) return true;
        const auto best =
            std::ranges::max_element(columns, {}, [&](const Vector& column) { return dot(column, left); });
        // At the optimum no column reduces the residual: its length is the distance that is left.
        if (best == columns.end() || dot(*best, left) < kTolerance * kTolerance) return false;
        chosen.push_back(static_cast<std::size_t>(best - columns.begin()));
        if (!settle(columns, target, chosen, weights)) return false;
    }
    return false;
}

}  // namespace moesaic
