#include "runtime/cpu/router.h"

#include <algorithm>
#include <cmath>

namespace moesaic::cpu {

namespace {

/// Adds row `from` onto `to`; an empty operand adds nothing.
template <class Real>
void add_row(ConstTensorView from, i64 row, double* to) {
    if (from.elements() == 0) return;
    const i64 experts = from.cols();
    const Real* values = from.as<Real>() + row * experts;
    for (i64 e = 0; e < experts; ++e) to[e] += static_cast<double>(values[e]);
}

/// Counts what a balance loss counts of a token's choices, where that is not all of them.
template <class Real>
void count_one(const RouterSums& operation, i64 row, i64* counts) {
    if (operation.counted == CountedChoices::first) {
        const i32 expert = operation.index.as<i32>()[row * operation.index.cols()];
        if (expert >= 0) ++counts[expert];
    } else if (operation.probability.elements() > 0) {
        const i64 experts = operation.probability.cols();
        const Real* probability = operation.probability.as<Real>() + row * experts;
        ++counts[std::max_element(probability, probability + experts) - probability];
    }
}

template <class Real>
void sum_object(const RouterSums& operation, i64 object) {
    const i64 experts = operation.counts.cols(), choices = operation.index.cols();
    const i64 first = object * operation.rows_per_object;
    const i64 last = std::min(first + operation.rows_per_object, operation.index.rows());
    const auto row_of = [&]<class T>(TensorView sums, T zero) {
        T* const values = sums.as<T>() + object * experts;
        std::fill_n(values, experts, zero);
        return values;
    };
    i64* const counts = row_of(operation.counts, i64{0});
    i64* const balance_counts = row_of(operation.balance_counts, i64{0});
    double* const probability_sum = row_of(operation.probability_sum, 0.0);
    double* const weight_sum = row_of(operation.weight_sum, 0.0);
    double* const load_sum = row_of(operation.load_sum, 0.0);
    double z_sum = 0;
    for (i64 row = first; row < last; ++row) {
        add_row<Real>(operation.probability, row, probability_sum);
        add_row<Real>(operation.load_probability, row, load_sum);
        if (operation.log_sum_exp.elements() > 0) {
            const auto log_sum_exp = static_cast<double>(operation.log_sum_exp.as<Real>()[row]);
            z_sum += log_sum_exp * log_sum_exp;
        }
        for (i64 choice = row * choices; choice < (row + 1) * choices; ++choice) {
            const i32 expert = operation.index.as<i32>()[choice];
            MOESAIC_ASSERT(expert >= -1 && expert < experts, "expert {} of {}", expert, experts);
            if (expert < 0) continue;
            ++counts[expert];
            weight_sum[expert] += static_cast<double>(operation.weight.as<Real>()[choice]);
        }
        if (operation.counted != CountedChoices::all) count_one<Real>(operation, row, balance_counts);
    }
    if (operation.counted == CountedChoices::all) std::copy_n(counts, experts, balance_counts);
    operation.z_sum.as<double>()[object] = z_sum;
}

/// The balance losses' derivatives by p, first of what becomes d_logits.
template <class Real>
void load_factors(const RouterGrad& operation, i64 row, Real* g) {
    const i64 experts = operation.probability.cols();
    std::fill_n(g, experts, Real{0});
    if (operation.balance_factor.elements() == 0) return;
    const i64 object = operation.balance_factor.rows() == 1 ? 0 : row / operation.rows_per_object;
    const double* const factor = operation.balance_factor.as<double>() + object * experts;
    for (i64 e = 0; e < experts; ++e) g[e] = static_cast<Real>(factor[e]);
}

/// g becomes the derivative by the logits of what depends on them through p and l.
template <class Real>
void through_probability(const RouterGrad& operation, i64 row, Real* g) {
    const i64 experts = operation.probability.cols();
    const Real* const probability = operation.probability.as<Real>() + row * experts;
    const Real log_sum_exp = operation.log_sum_exp.as<Real>()[row];
    Real mean = 0;  // <g, p>
    for (i64 e = 0; e < experts; ++e) mean += g[e] * probability[e];
    const Real z = static_cast<Real>(2 * operation.z_scale) * log_sum_exp;
    if (operation.sigmoid_logits.elements() == 0) {
        for (i64 e = 0; e < experts; ++e) g[e] = probability[e] * (g[e] - mean + z);
        return;
    }
    const Real* const logits = operation.sigmoid_logits.as<Real>() + row * experts;
    for (i64 e = 0; e < experts; ++e) {
        g[e] = probability[e] * (g[e] - mean) / (1 + std::exp(logits[e])) +
               z * std::exp(logits[e] - log_sum_exp);
    }
}

template <class Real>
void confidence_of_part(const RouterConfidence& operation, i64 part) {
    const i64 experts = operation.probability.cols(), choices = operation.weight.cols();
    const i64 first = part * operation.rows_per_part;
    const i64 last = std::min(first + operation.rows_per_part, operation.probability.rows());
    double entropy = 0, first_weight = 0;
    for (i64 row = first; row < last; ++row) {
        const Real* probability = operation.probability.as<Real>() + row * experts;
        for (i64 e = 0; e < experts; ++e) {
            const Real p = probability[e];
            if (p > 0) entropy -= static_cast<double>(p) * static_cast<double>(std::log(p));
        }
        first_weight += static_cast<double>(operation.weight.as<Real>()[row * choices]);
    }
    operation.entropy_sum.as<double>()[part] = entropy;
    operation.first_weight_sum.as<double>()[part] = first_weight;
}

template <class Real>
void row_grad(const RouterGrad& operation, i64 row) {
    const i64 experts = operation.probability.cols(), choices = operation.index.cols();
    const i32* index = operation.index.as<i32>() + row * choices;
    const Real* weight = operation.weight.as<Real>() + row * choices;
    const Real* d_weight = operation.d_weight.as<Real>() + row * choices;
    const bool sigmoid = operation.sigmoid_logits.elements() > 0;
    const Real* logits = sigmoid ? operation.sigmoid_logits.as<Real>() + row * experts : nullptr;
    const Real scale = static_cast<Real>(operation.weight_scale);
    Real* d_logits = operation.d_logits.as<Real>() + row * experts;  // first g of the formula in backend.h

    load_factors(operation, row, d_logits);
    Real mean_over_choices = 0;  // <d, w> / c
    for (i64 k = 0; k < choices; ++k) {
        if (index[k] < 0) continue;
        if (!operation.over_choices && !sigmoid) d_logits[index[k]] += scale * d_weight[k];
        mean_over_choices += weight[k] * d_weight[k];
    }
    mean_over_choices = operation.over_choices ? mean_over_choices / scale : Real{0};
    through_probability(operation, row, d_logits);
    if (!operation.over_choices && !sigmoid) return;
    for (i64 k = 0; k < choices; ++k) {
        if (index[k] < 0) continue;
        const Real slope = weight[k] * (d_weight[k] - mean_over_choices);
        d_logits[index[k]] += sigmoid ? slope / (1 + std::exp(logits[index[k]])) : slope;
    }
}

}  // namespace

void router_sums(const RouterSums& operation, Range objects) {
    for (i64 object = objects.first; object < objects.last; ++object) {
        if (operation.weight.dtype == DType::f32) {
            sum_object<float>(operation, object);
        } else {
            sum_object<double>(operation, object);
        }
    }
}

void router_confidence(const RouterConfidence& operation, Range parts) {
    for (i64 part = parts.first; part < parts.last; ++part) {
        if (operation.probability.dtype == DType::f32) {
            confidence_of_part<float>(operation, part);
        } else {
            confidence_of_part<double>(operation, part);
        }
    }
}

void router_grad(const RouterGrad& operation, Range rows) {
    for (i64 row = rows.first; row < rows.last; ++row) {
        if (operation.probability.dtype == DType::f32) {
            row_grad<float>(operation, row);
        } else {
            row_grad<double>(operation, row);
        }
    }
}

}  // namespace moesaic::cpu
