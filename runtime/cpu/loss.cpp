#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/loss.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/cpu/loss.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

template <class Real>
constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

/// The largest of a row. NaN may or may not win: the exponentials of the same row keep it.
template <class Real>
Real row_maximum(const Real* row, i64 columns) {
    const FullVector<Real> d;
    auto largest = hn::Set(d, kMinusInfinity<Real>);
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        largest = hn::Max(largest, load(d, row + i, columns - i, kMinusInfinity<Real>));
    }
    return hn::GetLane(hn::MaxOfLanes(d, largest));
}

/// Sum of e^(x - maximum); with `exponentials` these are kept there.
template <class Real>
Real sum_of_exponentials(const Real* row, i64 columns, Real maximum, Real* exponentials) {
    const FullVector<Real> d;
    const auto shift = hn::Set(d, maximum);
    return sum_over_columns(d, columns, [&](i64 column, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
        const auto value = load(d, row + column, rest, kMinusInfinity<Real>);
        const auto power = exponential(d, hn::Sub(value, shift));
        if (exponentials) store(d, power, exponentials + column, rest);
        return hn::Add(sum, power);
    });
}

template <class Real>
void softmax_row(const Real* logits, Real* probability, Real& log_sum_exp, i64 columns) {
    const FullVector<Real> d;
    const Real maximum = row_maximum(logits, columns);
    const Real sum = sum_of_exponentials(logits, columns, maximum, probability);
    const auto sums = hn::Set(d, sum);
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        store(d, hn::Div(load(d, probability + i, columns - i), sums), probability + i, columns - i);
    }
    log_sum_exp = maximum + std::log(sum);
}

/// The target's logit minus the largest other, which is the row's `maximum` unless the target has that.
template <class Real>
double margin_of_row(const Real* logits, i32 target, i64 columns, Real maximum) {
    Real other = maximum;
    if (!(logits[target] < maximum)) {
        other = std::max(row_maximum(logits, target), row_maximum(logits + target + 1, columns - target - 1));
    }
    return static_cast<double>(logits[target]) - static_cast<double>(other);
}

/// Sums blocks of columns in Real and the blocks in f64, which keeps f32 accurate for a large vocabulary.
template <class Real>
double log_sum_exp_of_row(const Real* logits, i64 columns, Real maximum) {
    constexpr i64 kBlock = 1024;
    double sum = 0;
    for (i64 first = 0; first < columns; first += kBlock) {
        const i64 count = std::min(kBlock, columns - first);
        sum += static_cast<double>(sum_of_exponentials<Real>(logits + first, count, maximum, nullptr));
    }
    return static_cast<double>(maximum) + std::log(sum);
}

template <class Real>
void cross_entropy_row_grad(const Real* logits, i32 target, double log_sum_exp, double scale, Real* d_logits,
                            i64 columns) {
    const FullVector<Real> d;
    if (target < 0) {
        std::fill_n(d_logits, columns, Real{0});
        return;
    }
    // Two parts, so that f32 logits are shifted by the f64 sum's full precision.
    const Real coarse = static_cast<Real>(log_sum_exp);
    const auto shift = hn::Set(d, coarse);
    const auto remainder = hn::Set(d, static_cast<Real>(log_sum_exp - static_cast<double>(coarse)));
    const auto factor = hn::Set(d, static_cast<Real>(scale));
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const auto shifted = hn::Sub(hn::Sub(load(d, logits + i, columns - i), shift), remainder);
        store(d, hn::Mul(exponential(d, shifted), factor), d_logits + i, columns - i);
    }
    d_logits[target] -= static_cast<Real>(scale);
}

void softmax_target(const RowSoftmax& operation, Range rows) {
    for_real(operation.logits.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        const i64 columns = operation.logits.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            softmax_row(operation.logits.as<Real>() + row * columns,
                        operation.probability.as<Real>() + row * columns,
                        operation.log_sum_exp.as<Real>()[row], columns);
        }
    });
}

void cross_entropy_target(const CrossEntropy& operation, Range rows) {
    for_real(operation.logits.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        const i64 columns = operation.logits.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Real* logits = operation.logits.as<Real>() + row * columns;
            const i32 target = operation.target.as<i32>()[row];
            MOESAIC_ASSERT(target >= -1 && target < columns, "target {} of row {}, vocabulary {}", target,
                           row, columns);
            const Real maximum = row_maximum(logits, columns);
            const double log_sum_exp = log_sum_exp_of_row(logits, columns, maximum);
            operation.log_sum_exp.as<double>()[row] = log_sum_exp;
            operation.loss.as<double>()[row] =
                target < 0 ? 0.0 : log_sum_exp - static_cast<double>(logits[target]);
            if (operation.wrong.elements() == 0 && operation.margin.elements() == 0) continue;
            const double margin = target < 0 ? std::numeric_limits<double>::infinity()
                                             : margin_of_row(logits, target, columns, maximum);
            if (operation.wrong.elements() > 0) operation.wrong.as<i32>()[row] = margin > 0 ? 0 : 1;
            if (operation.margin.elements() > 0) operation.margin.as<double>()[row] = margin;
        }
    });
}

void cross_entropy_grad_target(const CrossEntropyGrad& operation, Range rows) {
    for_real(operation.logits.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        const i64 columns = operation.logits.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            cross_entropy_row_grad(operation.logits.as<Real>() + row * columns,
                                   operation.target.as<i32>()[row], operation.log_sum_exp.as<double>()[row],
                                   operation.scale, operation.d_logits.as<Real>() + row * columns, columns);
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(softmax_target);
HWY_EXPORT(cross_entropy_target);
HWY_EXPORT(cross_entropy_grad_target);

void row_softmax(const RowSoftmax& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(softmax_target)(operation, rows);
}
void cross_entropy(const CrossEntropy& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(cross_entropy_target)(operation, rows);
}
void cross_entropy_grad(const CrossEntropyGrad& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(cross_entropy_grad_target)(operation, rows);
}

}  // namespace moesaic::cpu
#endif
