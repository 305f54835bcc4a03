#include "runtime/metrics/statistics/fits.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

namespace {

using Rows = std::vector<std::vector<double>>;

/// Turns the columns of `rows` (a copy) into an upper triangle by reflections that act on y as well. False
/// where a column adds nothing to those before it.
bool triangulate(Rows& rows, std::vector<double>& y) {
    const std::size_t count = rows.size(), columns = rows.front().size();
    for (std::size_t k = 0; k < columns; ++k) {
        double below = 0, whole = 0;
        for (std::size_t i = 0; i < count; ++i) {
            whole += rows[i][k] * rows[i][k];
            if (i >= k) below += rows[i][k] * rows[i][k];
        }
        if (!(below > 1e-20 * whole) || !(whole > 0)) return false;
        const double norm = rows[k][k] > 0 ? -std::sqrt(below) : std::sqrt(below);
        std::vector<double> v(count, 0.0);
        double square = 0;
        for (std::size_t i = k; i < count; ++i) {
            v[i] = rows[i][k] - (i == k ? norm : 0);
            square += v[i] * v[i];
        }
        const auto reflect = [&](const auto& at) {
            double along = 0;
            for (std::size_t i = k; i < count; ++i) along += v[i] * at(i);
            for (std::size_t i = k; i < count; ++i) at(i) -= 2 * along / square * v[i];
        };
        for (std::size_t j = k; j < columns; ++j)
            reflect([&](std::size_t i) -> double& { return rows[i][j]; });
        reflect([&](std::size_t i) -> double& { return y[i]; });
    }
    return true;
}

/// R^-1 b for the upper triangle at the top of `rows`.
std::vector<double> back_substituted(const Rows& rows, std::vector<double> b) {
    for (std::size_t k = b.size(); k-- > 0;) {
        for (std::size_t j = k + 1; j < b.size(); ++j) b[k] -= rows[k][j] * b[j];
        b[k] /= rows[k][k];
    }
    return b;
}

std::optional<LinearFit> log_fit(const std::vector<Cell>& cells, i64& left_out) {
    Rows rows;
    std::vector<double> y;
    left_out = 0;
    for (const Cell& cell : cells) {
        std::vector<double> row{1};
        for (const double x : cell.x) row.push_back(std::log(x));
        for (const double value : cell.y) {
            if (!(value > 0)) {
                ++left_out;
                continue;
            }
            rows.push_back(row);
            y.push_back(std::log(value));
        }
    }
    return least_squares(rows, y);
}

/// Cells drawn with replacement, and within each its runs.
std::vector<Cell> drawn(const std::vector<Cell>& cells, const Philox& random, u64& counter) {
    const auto pick = [&](std::size_t count) {
        return std::min(count - 1,
                        static_cast<std::size_t>(random.uniform(counter++) * static_cast<double>(count)));
    };
    std::vector<Cell> sample;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        const Cell& from = cells[pick(cells.size())];
        Cell cell{from.x, {}};
        for (std::size_t j = 0; j < from.y.size(); ++j) cell.y.push_back(from.y[pick(from.y.size())]);
        sample.push_back(std::move(cell));
    }
    return sample;
}

double robust_cost(const std::vector<double>& residuals) {
    double cost = 0;
    for (const double r : residuals) cost += 2 * (std::sqrt(1 + r * r) - 1);
    return std::isfinite(cost) ? cost : std::numeric_limits<double>::infinity();
}

}  // namespace

std::optional<LinearFit> least_squares(const Rows& rows, std::span<const double> y,
                                       std::span<const double> weights) {
    MOESAIC_ASSERT(rows.size() == y.size(), "{} rows, {} values", rows.size(), y.size());
    if (rows.empty() || rows.size() < rows.front().size()) return std::nullopt;
    Rows triangle = rows;
    std::vector<double> target(y.begin(), y.end());
    for (std::size_t i = 0; i < rows.size() && !weights.empty(); ++i) {
        for (double& value : triangle[i]) value *= std::sqrt(weights[i]);
        target[i] *= std::sqrt(weights[i]);
    }
    if (!triangulate(triangle, target)) return std::nullopt;
    const std::size_t columns = rows.front().size();
    LinearFit fit;
    fit.coefficients =
        back_substituted(triangle, {target.begin(), target.begin() + static_cast<std::ptrdiff_t>(columns)});
    double sum = 0;
    for (std::size_t i = columns; i < target.size(); ++i) sum += target[i] * target[i];
    const std::size_t free = target.size() - columns;
    fit.residual = free > 0 ? std::sqrt(sum / static_cast<double>(free)) : 0;
    // The covariance is residual^2 R^-1 R^-T: the error of coefficient k is the norm of row k of R^-1.
    std::vector<double> squares(columns, 0.0);
    for (std::size_t k = 0; k < columns; ++k) {
        std::vector<double> unit(columns, 0.0);
        unit[k] = 1;
        const std::vector<double> column = back_substituted(triangle, unit);
        for (std::size_t i = 0; i < columns; ++i) squares[i] += column[i] * column[i];
    }
    for (const double square : squares) fit.errors.push_back(fit.residual * std::sqrt(square));
    return fit;
}

std::optional<SlopeFit> log_log_slope(const std::vector<Cell>& cells, double alpha, i64 draws, u64 seed) {
    if (cells.empty() || cells.size() < cells.front().x.size() + 2) return std::nullopt;
    SlopeFit result;
    const auto fit = log_fit(cells, result.left_out);
    if (!fit) return std::nullopt;
    result.cells = static_cast<i64>(cells.size());
    result.intercept = fit->coefficients[0];
    result.slope.assign(fit->coefficients.begin() + 1, fit->coefficients.end());
    const Philox random(seed, "bootstrap of cells");
    u64 counter = 0;
    std::vector<std::vector<double>> slopes(result.slope.size());
    for (i64 draw = 0; draw < draws; ++draw) {
        i64 ignored = 0;
        const auto again = log_fit(drawn(cells, random, counter), ignored);
        if (!again) continue;  // all of one place on an axis
        for (std::size_t i = 0; i < slopes.size(); ++i) slopes[i].push_back(again->coefficients[i + 1]);
    }
    for (const auto& values : slopes) {
        if (values.empty()) return std::nullopt;
        result.low.push_back(quantile_of(values, alpha / 2));
        result.high.push_back(quantile_of(values, 1 - alpha / 2));
    }
    return result;
}

std::vector<double> robust_least_squares(
    const std::function<std::vector<double>(const std::vector<double>&)>& residuals,
    std::vector<double> start) {
    std::vector<double> at = std::move(start), here = residuals(at);
    double cost = robust_cost(here), damping = 1e-3;
    for (int iteration = 0; iteration < 500 && damping < 1e12; ++iteration) {
        // Reweighting with rho'(r^2) gives the gradient of the robust cost.
        const std::size_t count = here.size();
        Rows rows(count + at.size(), std::vector<double>(at.size(), 0.0));
        std::vector<double> target(count + at.size(), 0.0), scale(at.size(), 0.0);
        for (std::size_t j = 0; j < at.size(); ++j) {
            const double step = 1e-6 * std::max(1.0, std::abs(at[j]));
            std::vector<double> left = at, right = at;
            left[j] -= step;
            right[j] += step;
            const std::vector<double> below = residuals(left), above = residuals(right);
            for (std::size_t i = 0; i < count; ++i) {
                const double root = std::pow(1 + here[i] * here[i], -0.25);
                rows[i][j] = root * (above[i] - below[i]) / (2 * step);
                target[i] = -root * here[i];
                scale[j] += rows[i][j] * rows[i][j];
            }
            rows[count + j][j] = std::sqrt(damping * (scale[j] + 1e-12));
        }
        const auto change = least_squares(rows, target);
        if (!change) break;
        std::vector<double> next = at;
        double largest = 0;
        for (std::size_t j = 0; j < at.size(); ++j) {
            next[j] += change->coefficients[j];
            largest = std::max(largest, std::abs(change->coefficients[j]) / std::max(1.0, std::abs(at[j])));
        }
        const std::vector<double> there = residuals(next);
        const double found = robust_cost(there);
        if (found <= cost) {
            at = next;
            here = there;
            cost = found;
            damping = std::max(1e-12, damping / 5);
            if (largest < 1e-10) break;
        } else {
            damping *= 4;
        }
    }
    return at;
}

}  // namespace moesaic
