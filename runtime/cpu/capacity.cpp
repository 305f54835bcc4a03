#include "runtime/cpu/capacity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/cpu/scratch.h"

namespace moesaic::cpu {

namespace {

/// NaN counts as the smallest of all.
template <class Real>
bool is_better(Real a, Real b) {
    return std::isnan(b) ? !std::isnan(a) : a > b;
}

/// Moves the `capacity` choices (numbers t*K + k, ascending) that stay to the front.
template <class Real>
void select(ConstTensorView priority, i64 expert, i64 choices, i64 capacity, i32* first, i32* last) {
    const Real* const scores = priority.as<Real>();
    const i64 experts = priority.cols();
    std::nth_element(first, first + capacity, last, [=](i32 a, i32 b) {
        const Real score_a = scores[a / choices * experts + expert];
        const Real score_b = scores[b / choices * experts + expert];
        return is_better(score_a, score_b) || (!is_better(score_b, score_a) && a < b);
    });
}

/// Choices of an object by expert, each expert's in ascending order.
struct ByExpert {
    i32* end;     // [E] of each expert's choices
    i32* choice;  // [rows*K]
};

ByExpert group_by_expert(const LimitChoices& operation, i64 experts, i64 begin, i64 end) {
    i32* const memory = scratch<i32>(ScratchSlot::choices, experts + end - begin);
    const ByExpert grouped{memory, memory + experts};
    const i32* const index = operation.index.as<i32>();
    std::fill_n(grouped.end, experts, 0);
    for (i64 choice = begin; choice < end; ++choice) {
        MOESAIC_ASSERT(index[choice] >= -1 && index[choice] < experts, "expert {} of {}", index[choice],
                       experts);
        if (index[choice] >= 0) ++grouped.end[index[choice]];
    }
    std::exclusive_scan(grouped.end, grouped.end + experts, grouped.end, 0);
    for (i64 choice = begin; choice < end; ++choice) {
        if (index[choice] >= 0) grouped.choice[grouped.end[index[choice]]++] = static_cast<i32>(choice);
    }
    return grouped;
}

void limit_object(const LimitChoices& operation, i64 experts, i64 object) {
    const i64 choices = operation.index.cols();
    const i64 first_row = object * operation.rows_per_object;
    const i64 last_row = std::min(first_row + operation.rows_per_object, operation.index.rows());
    const i64 begin = first_row * choices, end = last_row * choices;
    const ByExpert grouped = group_by_expert(operation, experts, begin, end);
    i32* const kept = operation.kept.as<i32>();
    std::copy_n(operation.index.as<i32>() + begin, end - begin, kept + begin);
    i32* first = grouped.choice;
    for (i64 expert = 0; expert < experts; ++expert) {
        i32* const last = grouped.choice + grouped.end[expert];
        if (last - first > operation.capacity) {
            if (operation.priority.elements() == 0) {
                // in order already
            } else if (operation.priority.dtype == DType::f32) {
                select<float>(operation.priority, expert, choices, operation.capacity, first, last);
            } else {
                select<double>(operation.priority, expert, choices, operation.capacity, first, last);
            }
            std::for_each(first + operation.capacity, last, [&](i32 choice) { kept[choice] = -1; });
        }
        first = last;
    }
}

/// Sums over a token's choices, in ascending k.
template <class Real>
struct Weights {
    Real all = 0, kept = 0;
};

template <class Real>
Weights<Real> sum_weights(const Real* weight, const i32* index, const i32* kept, i64 choices) {
    Weights<Real> sums;
    for (i64 k = 0; k < choices; ++k) {
        if (index[k] >= 0) sums.all += weight[k];
        if (kept[k] >= 0) sums.kept += weight[k];
    }
    return sums;
}

template <class Real>
void rescale_row(const RescaleKept& operation, i64 row) {
    const i64 choices = operation.index.cols(), first = row * choices;
    const Real* weight = operation.weight.as<Real>() + first;
    const i32* kept = operation.kept.as<i32>() + first;
    const Weights<Real> sums = sum_weights(weight, operation.index.as<i32>() + first, kept, choices);
    // Nothing dropped: exactly 1, so that weights keep their bits.
    const Real factor = sums.kept == 0 ? Real{0} : sums.all / sums.kept;
    for (i64 k = 0; k < choices; ++k) {
        operation.out.as<Real>()[first + k] = kept[k] >= 0 ? weight[k] * factor : Real{0};
    }
}

/// With s and r as in backend.h and D = sum over kept j of d_j w_j: d out_j / d w_i sums to
/// [i kept] (d_i s/r - D s/r^2) + D/r.
template <class Real>
void rescale_grad_row(const RescaleKeptGrad& operation, i64 row) {
    const i64 choices = operation.index.cols(), first = row * choices;
    const Real* weight = operation.weight.as<Real>() + first;
    const Real* d_out = operation.d_out.as<Real>() + first;
    const i32* index = operation.index.as<i32>() + first;
    const i32* kept = operation.kept.as<i32>() + first;
    Real* d_weight = operation.d_weight.as<Real>() + first;
    const Weights<Real> sums = sum_weights(weight, index, kept, choices);
    Real product = 0;  // D
    for (i64 k = 0; k < choices; ++k) {
        if (kept[k] >= 0) product += d_out[k] * weight[k];
    }
    const Real scale = sums.kept == 0 ? Real{0} : 1 / sums.kept;
    const Real factor = sums.all * scale, mean = product * scale;
    for (i64 k = 0; k < choices; ++k) {
        Real d = index[k] >= 0 ? mean : Real{0};
        if (kept[k] >= 0) d += factor * (d_out[k] - mean);
        d_weight[k] = d;
    }
}

}  // namespace

void add_by_choice(const AddByChoice& operation, Range rows) {
    const i64 choices = operation.index.cols(), experts = operation.factor.cols();
    for (i64 row = rows.first; row < rows.last; ++row) {
        const i64 object = operation.factor.rows() == 1 ? 0 : row / operation.rows_per_object;
        const double* factor = operation.factor.as<double>() + object * experts;
        for (i64 choice = row * choices; choice < (row + 1) * choices; ++choice) {
            const i32 expert = operation.index.as<i32>()[choice];
            if (expert < 0) continue;
            if (operation.d_weight.dtype == DType::f32) {
                operation.d_weight.as<float>()[choice] += static_cast<float>(factor[expert]);
            } else {
                operation.d_weight.as<double>()[choice] += factor[expert];
            }
        }
    }
}

void limit_choices(const LimitChoices& operation, Range objects) {
    for (i64 object = objects.first; object < objects.last; ++object)
        limit_object(operation, operation.experts, object);
}

void rescale_kept(const RescaleKept& operation, Range rows) {
    for (i64 row = rows.first; row < rows.last; ++row) {
        if (operation.weight.dtype == DType::f32) {
            rescale_row<float>(operation, row);
        } else {
            rescale_row<double>(operation, row);
        }
    }
}

void rescale_kept_grad(const RescaleKeptGrad& operation, Range rows) {
    for (i64 row = rows.first; row < rows.last; ++row) {
        if (operation.weight.dtype == DType::f32) {
            rescale_grad_row<float>(operation, row);
        } else {
            rescale_grad_row<double>(operation, row);
        }
    }
}

}  // namespace moesaic::cpu
