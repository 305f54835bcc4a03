#include "runtime/cpu/router_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/cpu/element_types.h"

namespace moesaic::cpu {

namespace {

/// The rows of one object.
Range object_rows(i64 object, i64 rows_per_object, i64 rows) {
    const i64 first = object * rows_per_object;
    return {first, std::min(first + rows_per_object, rows)};
}

template <class Real>
void choose_of_object(const ChooseTokens& operation, Range rows, std::vector<i32>& order) {
    const i64 experts = operation.scores.cols(), count = rows.last - rows.first;
    const Real* const scores = operation.scores.as<Real>() + rows.first * experts;
    i32* const index = operation.index.as<i32>() + rows.first * experts;
    std::fill_n(index, count * experts, -1);
    order.resize(static_cast<std::size_t>(count));
    const auto take = order.begin() + static_cast<std::ptrdiff_t>(std::min(operation.take, count));
    for (i64 e = 0; e < experts; ++e) {
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), take, order.end(), [&](i32 a, i32 b) {
            const Real left = scores[a * experts + e], right = scores[b * experts + e];
            if (std::isnan(left) != std::isnan(right)) return std::isnan(right);
            return left > right || (!(right > left) && a < b);
        });
        for (auto token = order.begin(); token != take; ++token)
            index[*token * experts + e] = static_cast<i32>(e);
    }
}

/// Row maxima are subtracted: a factor of a row is one of u, which the iteration absorbs.
template <class Real>
void exponentials(const Sinkhorn& operation, Range rows) {
    const i64 experts = operation.logits.cols();
    for (i64 row = rows.first; row < rows.last; ++row) {
        const Real* const logits = operation.logits.as<Real>() + row * experts;
        double* const work = operation.work.as<double>() + row * experts;
        const auto largest = static_cast<double>(*std::max_element(logits, logits + experts));
        for (i64 e = 0; e < experts; ++e) work[e] = std::exp(static_cast<double>(logits[e]) - largest);
    }
}

template <class Real>
void sinkhorn_of_object(const Sinkhorn& operation, Range rows) {
    constexpr double kTiny = 1e-300;  // an expert that nobody can take divides by it once
    const i64 experts = operation.logits.cols();
    const double share = static_cast<double>(rows.last - rows.first) / static_cast<double>(experts);
    exponentials<Real>(operation, rows);
    std::vector<double> column(static_cast<std::size_t>(experts), 1.0), sums(column.size());
    for (i64 iteration = 0; iteration < operation.iterations; ++iteration) {
        std::fill(sums.begin(), sums.end(), 0.0);
        for (i64 row = rows.first; row < rows.last; ++row) {
            const double* const work = operation.work.as<double>() + row * experts;
            double mass = 0;
            for (std::size_t e = 0; e < column.size(); ++e) mass += column[e] * work[e];
            const double factor = 1 / std::max(mass, kTiny);
            for (std::size_t e = 0; e < column.size(); ++e) sums[e] += factor * work[e];
        }
        for (std::size_t e = 0; e < column.size(); ++e) column[e] = share / std::max(sums[e], kTiny);
    }
    for (i64 i = rows.first * experts; i < rows.last * experts; ++i) {
        const double offset = std::log(column[static_cast<std::size_t>(i % experts)]);
        operation.scores.as<Real>()[i] =
            static_cast<Real>(static_cast<double>(operation.logits.as<Real>()[i]) + offset);
    }
}

template <class Stored>
RealType<Stored> squared_distance(const Stored* a, const Stored* b, i64 width) {
    RealType<Stored> sum = 0;
    for (i64 i = 0; i < width; ++i) {
        const RealType<Stored> difference = read(a[i]) - read(b[i]);
        sum += difference * difference;
    }
    return sum;
}

}  // namespace

void gather_choices(const GatherChoices& operation, Range rows) {
    const i64 experts = operation.scores.cols(), choices = operation.index.cols();
    with_real(operation.scores.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 i = rows.first * choices; i < rows.last * choices; ++i) {
            const i32 expert = operation.index.as<i32>()[i];
            MOESAIC_ASSERT(expert >= -1 && expert < experts, "expert {} of {}", expert, experts);
            operation.value.as<Real>()[i] =
                expert < 0 ? Real{0} : operation.scores.as<Real>()[i / choices * experts + expert];
        }
    });
}

void normalize_rows(const NormalizeRows& operation, Range rows) {
    const i64 columns = operation.x.cols();
    with_real(operation.x.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 row = rows.first; row < rows.last; ++row) {
            Real* const x = operation.x.as<Real>() + row * columns;
            const Real sum = std::accumulate(x, x + columns, Real{0});
            const Real factor = static_cast<Real>(operation.scale) / (sum + static_cast<Real>(1e-20));
            for (i64 i = 0; i < columns; ++i) x[i] *= factor;
        }
    });
}

void sigmoid_scores(const SigmoidScores& operation, Range rows) {
    const i64 experts = operation.logits.cols();
    with_real(operation.logits.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Real* const logits = operation.logits.as<Real>() + row * experts;
            Real* const score = operation.score.as<Real>() + row * experts;
            const Real largest = *std::max_element(logits, logits + experts);
            Real sum = 0, exponentials = 0;
            for (i64 e = 0; e < experts; ++e) {
                score[e] = 1 / (1 + std::exp(-logits[e]));
                sum += score[e];
                exponentials += std::exp(logits[e] - largest);
            }
            const Real factor = 1 / (sum + static_cast<Real>(1e-20));
            for (i64 e = 0; e < experts; ++e)
                operation.probability.as<Real>()[row * experts + e] = score[e] * factor;
            operation.log_sum_exp.as<Real>()[row] = largest + std::log(exponentials);
        }
    });
}

void choose_tokens(const ChooseTokens& operation, Range objects) {
    std::vector<i32> order;
    for (i64 object = objects.first; object < objects.last; ++object) {
        const Range rows = object_rows(object, operation.rows_per_object, operation.scores.rows());
        with_real(operation.scores.dtype,
                  [&](auto real) { choose_of_object<decltype(real)>(operation, rows, order); });
    }
}

void sinkhorn(const Sinkhorn& operation, Range objects) {
    for (i64 object = objects.first; object < objects.last; ++object) {
        const Range rows = object_rows(object, operation.rows_per_object, operation.logits.rows());
        with_real(operation.logits.dtype,
                  [&](auto real) { sinkhorn_of_object<decltype(real)>(operation, rows); });
    }
}

void prototype_logits(const PrototypeLogits& operation, Range rows) {
    const i64 width = operation.x.cols(), experts = operation.prototype.rows();
    with_stored(operation.x.dtype, [&](auto stored) {
        using Stored = decltype(stored);
        for (i64 row = rows.first; row < rows.last; ++row) {
            for (i64 e = 0; e < experts; ++e) {
                operation.logits.as<RealType<Stored>>()[row * experts + e] =
                    -squared_distance(operation.x.as<Stored>() + row * width,
                                      operation.prototype.as<Stored>() + e * width, width);
            }
        }
    });
}

void prototype_input_grad(const PrototypeLogitsGrad& operation, Range rows) {
    const i64 width = operation.x.cols(), experts = operation.prototype.rows();
    with_stored(operation.x.dtype, [&](auto stored) {
        using Stored = decltype(stored);
        using Real = RealType<Stored>;
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Real* const d_logits = operation.d_logits.as<Real>() + row * experts;
            for (i64 i = 0; i < width; ++i) {
                const Real x = read(operation.x.as<Stored>()[row * width + i]);
                Real sum = 0;
                for (i64 e = 0; e < experts; ++e)
                    sum += d_logits[e] * (x - read(operation.prototype.as<Stored>()[e * width + i]));
                Stored& dx = operation.dx.as<Stored>()[row * width + i];
                write(dx, read(dx) - 2 * sum);
            }
        }
    });
}

void prototype_grad(const PrototypeLogitsGrad& operation, Range prototypes) {
    const i64 rows = operation.x.rows(), width = operation.x.cols(), experts = operation.prototype.rows();
    with_stored(operation.x.dtype, [&](auto stored) {
        using Stored = decltype(stored);
        using Real = RealType<Stored>;
        for (i64 row = 0; row < rows; ++row) {
            const Stored* const x = operation.x.as<Stored>() + row * width;
            for (i64 e = prototypes.first; e < prototypes.last; ++e) {
                const Real factor = 2 * operation.d_logits.as<Real>()[row * experts + e];
                const Stored* const prototype = operation.prototype.as<Stored>() + e * width;
                Real* const d_prototype = operation.d_prototype.as<Real>() + e * width;
                for (i64 i = 0; i < width; ++i) d_prototype[i] += factor * (read(x[i]) - read(prototype[i]));
            }
        }
    });
}

void balance_bias(const BalanceBias& operation) {
    const i64 experts = operation.counts.elements();
    const i64* const counts = operation.counts.as<i64>();
    const i64 total = std::accumulate(counts, counts + experts, i64{0});
    with_real(operation.bias.dtype, [&](auto real) {
        using Real = decltype(real);
        Real* const bias = operation.bias.as<Real>();
        double sum = 0;
        for (i64 e = 0; e < experts; ++e) {
            // Whole numbers, so that an expert with exactly the mean load stays where it is.
            const i64 missing = total - experts * counts[e];
            const double sign = missing > 0 ? 1 : missing < 0 ? -1 : 0;
            bias[e] = static_cast<Real>(static_cast<double>(bias[e]) + operation.rate * sign);
            sum += static_cast<double>(bias[e]);
        }
        if (!operation.recentre) return;
        for (i64 e = 0; e < experts; ++e)
            bias[e] = static_cast<Real>(static_cast<double>(bias[e]) - sum / static_cast<double>(experts));
    });
}

}  // namespace moesaic::cpu
