#include "runtime/metrics/matrix_norms.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"

namespace moesaic {

namespace {

constexpr int kIterations = 20;

/// In eight interleaved sums, which compilers turn into vectors.
double dot(const float* a, const float* b, i64 count) {
    double sums[8] = {};
    i64 i = 0;
    for (; i + 8 <= count; i += 8) {
        for (i64 lane = 0; lane < 8; ++lane)
            sums[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
    for (; i < count; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// The same in f32, for what is rounded to f32 anyway.
float dot_f32(const float* a, const float* b, i64 count) {
    constexpr i64 kLanes = 16;
    float sums[kLanes] = {};
    i64 i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (i64 lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < count; ++i) sums[0] += a[i] * b[i];
    for (i64 half = kLanes / 2; half > 0; half /= 2) {
        for (i64 lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
}

/// right = W^T left in f32, four rows of W at a time.
void multiply_transposed(std::span<const float> weights, std::span<const float> left,
                         std::span<float> right) {
    const std::size_t columns = right.size();
    std::ranges::fill(right, 0.0F);
    std::size_t row = 0;
    for (; row + 4 <= left.size(); row += 4) {
        const float* const values = weights.data() + row * columns;
        const float a = left[row], b = left[row + 1], c = left[row + 2], d = left[row + 3];
        for (std::size_t i = 0; i < columns; ++i)
            right[i] += (a * values[i] + b * values[columns + i]) +
                        (c * values[2 * columns + i] + d * values[3 * columns + i]);
    }
    for (; row < left.size(); ++row) {
        const float* const values = weights.data() + row * columns;
        for (std::size_t i = 0; i < columns; ++i) right[i] += left[row] * values[i];
    }
}

double norm_of(const std::vector<float>& values) {
    return std::sqrt(dot(values.data(), values.data(), std::ssize(values)));
}

/// sqrt of the largest eigenvalue of WᵀW by power iteration (von Mises), in f32 with f64 norms.
double spectral_norm_estimate(std::span<const float> weights, i64 rows, i64 columns, std::string_view name) {
    const Philox random(1, name);
    std::vector<float> right(static_cast<std::size_t>(columns)), left(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < right.size(); ++i) right[i] = static_cast<float>(random.normal(i));
    double estimate = 0;
    for (int iteration = 0; iteration <= kIterations; ++iteration) {
        const double length = norm_of(right);
        if (!(length > 0)) return 0;
        for (float& value : right) value = static_cast<float>(static_cast<double>(value) / length);
        for (i64 row = 0; row < rows; ++row)
            left[static_cast<std::size_t>(row)] =
                dot_f32(weights.data() + row * columns, right.data(), columns);
        estimate = norm_of(left);
        multiply_transposed(weights, left, right);
    }
    return estimate;
}

}  // namespace

MatrixNorms matrix_norms(std::span<const float> weights, i64 rows, i64 columns, std::string_view name) {
    MOESAIC_ASSERT(std::ssize(weights) == rows * columns, "{} weights of {} x {}", weights.size(), rows,
                   columns);
    MatrixNorms norms;
    for (i64 row = 0; row < rows; ++row) {
        const float* const values = weights.data() + row * columns;
        const double squares = dot(values, values, columns);
        norms.frobenius += squares;
        norms.row_sum += std::sqrt(squares);
        norms.largest_row = std::max(norms.largest_row, std::sqrt(squares));
    }
    norms.frobenius = std::sqrt(norms.frobenius);
    norms.spectral = spectral_norm_estimate(weights, rows, columns, name);
    return norms;
}

double path_norm(std::span<const float> down, std::span<const float> up, i64 hidden) {
    MOESAIC_ASSERT(hidden > 0 && down.size() == up.size() && std::ssize(up) % hidden == 0,
                   "{} and {} weights, {} hidden", down.size(), up.size(), hidden);
    const i64 width = std::ssize(up) / hidden;
    std::vector<double> columns(static_cast<std::size_t>(hidden), 0.0);  // squares
    for (i64 row = 0; row < width; ++row) {
        for (i64 column = 0; column < hidden; ++column) {
            const auto value = static_cast<double>(down[static_cast<std::size_t>(row * hidden + column)]);
            columns[static_cast<std::size_t>(column)] += value * value;
        }
    }
    double sum = 0;
    for (i64 row = 0; row < hidden; ++row) {
        const float* const values = up.data() + row * width;
        sum += std::sqrt(columns[static_cast<std::size_t>(row)] * dot(values, values, width));
    }
    return sum;
}

}  // namespace moesaic
