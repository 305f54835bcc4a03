#include "runtime/cpu/router_noise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/cpu/element_types.h"

namespace moesaic::cpu {

namespace {

template <class Real>
Real softplus(Real x) {
    return std::max(x, Real{0}) + std::log1p(std::exp(-std::abs(x)));
}

template <class Real>
Real sigmoid(Real x) {
    return 1 / (1 + std::exp(-x));
}

/// By how many deviations a logit beats its rival's; 0 of a tie, also without noise.
template <class Real>
Real lead(Real clean, Real rival, Real deviation) {
    return clean == rival ? 0 : (clean - rival) / deviation;
}

/// The expert whose logit expert e has to beat: the K-th best of the others.
i32 rival_of(i64 e, const i32* ranked, i64 choices) {
    const bool chosen = std::find(ranked, ranked + choices, static_cast<i32>(e)) != ranked + choices;
    return ranked[chosen ? choices : choices - 1];
}

template <class Real>
void load_grad_row(const NoisyLoadGrad& operation, i64 row) {
    const i64 experts = operation.clean.cols(), choices = operation.ranked.cols() - 1;
    const i64 object = operation.factor.rows() == 1 ? 0 : row / operation.rows_per_object;
    const double* const factor = operation.factor.as<double>() + object * experts;
    const i32* const ranked = operation.ranked.as<i32>() + row * (choices + 1);
    const i64 first = row * experts;
    for (i64 e = 0; e < experts; ++e) {
        const i32 rival = rival_of(e, ranked, choices);
        const Real spread = operation.spread.as<Real>()[first + e];
        const Real deviation = softplus(spread);
        const Real z = lead(operation.clean.as<Real>()[first + e], operation.logits.as<Real>()[first + rival],
                            deviation);
        const Real density =
            static_cast<Real>(std::numbers::inv_sqrtpi / std::numbers::sqrt2) * std::exp(-z * z / 2);
        // No noise, no slope: the load is a step. Far from it 0 would meet an infinity.
        if (deviation < std::numeric_limits<Real>::min() || density == 0) continue;
        const Real slope = static_cast<Real>(factor[e]) * density / deviation;
        operation.d_clean.as<Real>()[first + e] += slope;
        operation.d_logits.as<Real>()[first + rival] -= slope;
        operation.d_spread.as<Real>()[first + e] -= slope * z * sigmoid(spread);
    }
}

}  // namespace

void random_fill(const RandomFill& operation, Range elements) {
    with_real(operation.values.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 i = elements.first; i < elements.last; ++i) {
            const u64 number = operation.first + static_cast<u64>(i);
            const double value = operation.normal ? operation.random.normal(number)
                                                  : operation.low + (operation.high - operation.low) *
                                                                        operation.random.uniform(number);
            operation.values.as<Real>()[i] = static_cast<Real>(value);
        }
    });
}

void multiply_elements(const MultiplyElements& operation, Range elements) {
    with_stored(operation.y.dtype, [&](auto stored) {
        using Stored = decltype(stored);
        using Real = RealType<Stored>;
        for (i64 i = elements.first; i < elements.last; ++i) {
            const Real product = read(operation.x.as<Stored>()[i]) * operation.factor.as<Real>()[i];
            Stored& y = operation.y.as<Stored>()[i];
            write(y, operation.accumulate ? read(y) + product : product);
        }
    });
}

void noisy_logits(const NoisyLogits& operation, Range rows) {
    const i64 experts = operation.clean.cols();
    with_real(operation.clean.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 i = rows.first * experts; i < rows.last * experts; ++i) {
            operation.logits.as<Real>()[i] =
                operation.clean.as<Real>()[i] +
                operation.noise.as<Real>()[i] * softplus(operation.spread.as<Real>()[i]);
        }
    });
}

void noisy_logits_grad(const NoisyLogitsGrad& operation, Range rows) {
    const i64 experts = operation.spread.cols();
    with_real(operation.spread.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 i = rows.first * experts; i < rows.last * experts; ++i) {
            const Real d = operation.d_logits.as<Real>()[i];
            operation.d_clean.as<Real>()[i] += d;
            operation.d_spread.as<Real>()[i] +=
                d * operation.noise.as<Real>()[i] * sigmoid(operation.spread.as<Real>()[i]);
        }
    });
}

void noisy_load(const NoisyLoad& operation, Range rows) {
    const i64 experts = operation.clean.cols(), choices = operation.ranked.cols() - 1;
    with_real(operation.clean.dtype, [&](auto real) {
        using Real = decltype(real);
        for (i64 i = rows.first * experts; i < rows.last * experts; ++i) {
            const i64 row = i / experts;
            const i32 rival =
                rival_of(i % experts, operation.ranked.as<i32>() + row * (choices + 1), choices);
            const Real z =
                lead(operation.clean.as<Real>()[i], operation.logits.as<Real>()[row * experts + rival],
                     softplus(operation.spread.as<Real>()[i]));
            operation.probability.as<Real>()[i] = std::erfc(-z / std::numbers::sqrt2_v<Real>) / 2;
        }
    });
}

void noisy_load_grad(const NoisyLoadGrad& operation, Range rows) {
    with_real(operation.clean.dtype, [&](auto real) {
        for (i64 row = rows.first; row < rows.last; ++row) load_grad_row<decltype(real)>(operation, row);
    });
}

}  // namespace moesaic::cpu
