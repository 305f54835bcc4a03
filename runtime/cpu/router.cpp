#include "runtime/cpu/router.h"

#include <algorithm>
#include <cmath>

namespace moesaic::cpu {

namespace {

template <class Real>
void sum_object(const RouterSums& operation, i64 object) {
    const i64 experts = operation.probability.cols(), choices = operation.index.cols();
    const i64 first = object * operation.rows_per_object;
    const i64 last = std::min(first + operation.rows_per_object, operation.probability.rows());
    i64* counts = operation.counts.as<i64>() + object * experts;
    double* probability_sum = operation.probability_sum.as<double>() + object * experts;
    double z_sum = 0, weight_sum = 0;
    std::fill_n(counts, experts, i64{0});
    std::fill_n(probability_sum, experts, 0.0);
    for (i64 row = first; row < last; ++row) {
        const Real* probability = operation.probability.as<Real>() + row * experts;
        for (i64 e = 0; e < experts; ++e) probability_sum[e] += static_cast<double>(probability[e]);
        const auto log_sum_exp = static_cast<double>(operation.log_sum_exp.as<Real>()[row]);
        z_sum += log_sum_exp * log_sum_exp;
        for (i64 choice = row * choices; choice < (row + 1) * choices; ++choice) {
            const i32 expert = operation.index.as<i32>()[choice];
            MOESAIC_ASSERT(expert >= -1 && expert < experts, "expert {} of {}", expert, experts);
            if (expert < 0) continue;
            ++counts[expert];
            weight_sum += static_cast<double>(operation.weight.as<Real>()[choice]);
        }
    }
    operation.z_sum.as<double>()[object] = z_sum;
    operation.weight_sum.as<double>()[object] = weight_sum;
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
    const Real* probability = operation.probability.as<Real>() + row * experts;
    const i32* index = operation.index.as<i32>() + row * choices;
    const Real* weight = operation.weight.as<Real>() + row * choices;
    const Real* d_weight = operation.d_weight.as<Real>() + row * choices;
    const i64 object = operation.counts.rows() == 1 ? 0 : row / operation.rows_per_object;
    const i64* counts = operation.counts.as<i64>() + object * experts;
    Real* d_logits = operation.d_logits.as<Real>() + row * experts;  // first g of the formula in backend.h

    for (i64 e = 0; e < experts; ++e) {
        d_logits[e] = static_cast<Real>(operation.balance_scale * static_cast<double>(counts[e]));
    }
    Real mean_over_choices = 0;  // <d, w>
    for (i64 k = 0; k < choices; ++k) {
        if (index[k] < 0) continue;
        if (!operation.over_choices) d_logits[index[k]] += d_weight[k];
        mean_over_choices += weight[k] * d_weight[k];
    }
    Real mean = 0;  // <g, p>
    for (i64 e = 0; e < experts; ++e) mean += d_logits[e] * probability[e];
    const Real z = static_cast<Real>(2 * operation.z_scale) * operation.log_sum_exp.as<Real>()[row];
    for (i64 e = 0; e < experts; ++e) d_logits[e] = probability[e] * (d_logits[e] - mean + z);
    if (!operation.over_choices) return;
    for (i64 k = 0; k < choices; ++k) {
        if (index[k] >= 0) d_logits[index[k]] += weight[k] * (d_weight[k] - mean_over_choices);
    }
}

}  // namespace

void router_sums(const RouterSums& operation, Range objects) {
    for (i64 object = objects.first; object < objects.last; ++object) {
        if (operation.probability.dtype == DType::f32) {
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
