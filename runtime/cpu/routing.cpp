#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/routing.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "runtime/cpu/routing.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

template <class Stored>
void gather_add_row(const Stored* in, Stored* out, i64 width) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < width; i += lanes_of(d)) {
        store(d, hn::Add(load(d, out + i, width - i), load(d, in + i, width - i)), out + i, width - i);
    }
}

/// Copies past the caches; `to` is aligned to vectors and `bytes` a multiple of theirs.
void stream_row(const std::byte* from, std::byte* to, i64 bytes) {
    const FullVector<std::uint8_t> d;
    for (i64 i = 0; i < bytes; i += lanes_of(d)) {
        hn::Stream(hn::LoadU(d, reinterpret_cast<const std::uint8_t*>(from + i)), d,
                   reinterpret_cast<std::uint8_t*>(to + i));
    }
}

/// One token's row from the rows in its slots; a null `weight` is all 1.
template <class Stored, class Real = RealOf<Stored>>
void combine_row(const Stored* rows, const i32* slot, const Real* weight, Stored* y, i64 choices, i64 width,
                 bool accumulate) {
    const FullVector<Real> d;
    for (i64 i = 0; i < width; i += lanes_of(d)) {
        const i64 rest = width - i;
        auto sum = accumulate ? load(d, y + i, rest) : hn::Zero(d);
        for (i64 k = 0; k < choices; ++k) {
            if (slot[k] < 0) continue;
            const auto value = load(d, rows + slot[k] * width + i, rest);
            sum = weight ? hn::MulAdd(hn::Set(d, weight[k]), value, sum) : hn::Add(sum, value);
        }
        store(d, sum, y + i, rest);
    }
}

template <class Stored, class Real = RealOf<Stored>>
Real dot(const Stored* a, const Stored* b, i64 count) {
    const FullVector<Real> d;
    return sum_over_columns(d, count, [&](i64 i, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
        return hn::MulAdd(load(d, a + i, rest), load(d, b + i, rest), sum);
    });
}

template <class Stored, class Real = RealOf<Stored>>
void scaled_row(Real factor, const Stored* in, Stored* out, i64 width) {
    const FullVector<Real> d;
    const auto factors = hn::Set(d, factor);
    for (i64 i = 0; i < width; i += lanes_of(d)) {
        store(d, hn::Mul(factors, load(d, in + i, width - i)), out + i, width - i);
    }
}

void gather_target(const GatherRows& operation, Range rows) {
    const i64 row_bytes = operation.out.cols() * size_of(operation.out.dtype);
    const i32* index = operation.index.as<i32>();
    const i32* place = operation.place.shape.rank() > 0 ? operation.place.as<i32>() : nullptr;
    const auto* in = static_cast<const std::byte*>(operation.in.data);
    auto* out = static_cast<std::byte*>(operation.out.data);
    const bool streams =
        operation.past_caches && row_bytes % 64 == 0 && reinterpret_cast<std::uintptr_t>(out) % 64 == 0;
    for (i64 row = rows.first; row < rows.last; ++row) {
        std::byte* to = out + (place ? place[row] : row) * row_bytes;
        if (index[row] < 0) {
            std::memset(to, 0, static_cast<std::size_t>(row_bytes));
        } else if (streams) {
            stream_row(in + index[row] * row_bytes, to, row_bytes);
        } else {
            std::memcpy(to, in + index[row] * row_bytes, static_cast<std::size_t>(row_bytes));
        }
    }
    if (streams) hwy::FlushStream();  // such stores are not ordered by a release
}

void gather_add_target(const GatherRows& operation, Range rows) {
    for_stored(operation.in.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 width = operation.out.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            const i64 source = operation.index.as<i32>()[row];
            if (source < 0) continue;
            gather_add_row(operation.in.as<Stored>() + source * width,
                           operation.out.as<Stored>() + row * width, width);
        }
    });
}

void combine_target(const CombineRows& operation, Range rows) {
    for_stored(operation.y.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 width = operation.y.cols(), choices = operation.slot.cols();
        const bool weighted = operation.weight.elements() > 0;
        for (i64 row = rows.first; row < rows.last; ++row) {
            combine_row(operation.rows.as<Stored>(), operation.slot.as<i32>() + row * choices,
                        weighted ? operation.weight.as<RealOf<Stored>>() + row * choices : nullptr,
                        operation.y.as<Stored>() + row * width, choices, width, operation.accumulate);
        }
    });
}

void combine_grad_target(const CombineRowsGrad& operation, Range rows) {
    for_stored(operation.dy.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 width = operation.dy.cols(), choices = operation.slot.cols();
        const RealOf<Stored>* weight =
            operation.weight.elements() > 0 ? operation.weight.as<RealOf<Stored>>() : nullptr;
        RealOf<Stored>* d_weight =
            operation.d_weight.elements() > 0 ? operation.d_weight.as<RealOf<Stored>>() : nullptr;
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Stored* dy = operation.dy.as<Stored>() + row * width;
            for (i64 choice = row * choices; choice < (row + 1) * choices; ++choice) {
                const i64 slot = operation.slot.as<i32>()[choice];
                // The dot product comes first: d_rows may be the rows' own memory.
                if (d_weight) {
                    d_weight[choice] = slot < 0 ? RealOf<Stored>{0}
                                                : dot(dy, operation.rows.as<Stored>() + slot * width, width);
                }
                if (slot < 0) continue;
                scaled_row(weight ? weight[choice] : RealOf<Stored>{1}, dy,
                           operation.d_rows.as<Stored>() + slot * width, width);
            }
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(gather_target);
HWY_EXPORT(gather_add_target);
HWY_EXPORT(combine_target);
HWY_EXPORT(combine_grad_target);

namespace {

/// NaN counts as the smallest of all.
template <class Real>
bool is_better(Real a, Real b) {
    return std::isnan(b) ? !std::isnan(a) : a > b;
}

/// Keeps the best so far in descending order; an equal score goes behind, which is the lower index first.
template <class Real>
void top_k_row(const Real* scores, i64 columns, i32* index, Real* value, i64 choices) {
    i64 kept = 0;
    for (i64 column = 0; column < columns; ++column) {
        const Real score = scores[column];
        if (kept == choices && !is_better(score, value[kept - 1])) continue;
        i64 place = kept < choices ? kept++ : kept - 1;
        for (; place > 0 && is_better(score, value[place - 1]); --place) {
            value[place] = value[place - 1];
            index[place] = index[place - 1];
        }
        value[place] = score;
        index[place] = static_cast<i32>(column);
    }
}

/// Working memory of a thread's rows.
template <class Real>
struct TopKScratch {
    std::vector<Real> scores, group_scores, best;
    std::vector<i32> kept;
};

/// Columns outside of the best groups count as -infinity: enough others are left.
template <class Real>
void exclude_groups(const TopK& operation, TopKScratch<Real>& scratch) {
    const i64 size = operation.scores.cols() / operation.groups;
    const bool both = operation.group_score == GroupScore::top2_sum && size > 1;
    scratch.group_scores.resize(static_cast<std::size_t>(operation.groups));
    scratch.best.resize(static_cast<std::size_t>(operation.top_groups));
    scratch.kept.resize(scratch.best.size());
    Real* const scores = scratch.scores.data();
    for (i64 group = 0; group < operation.groups; ++group) {
        Real two[2] = {};
        i32 index[2] = {};
        top_k_row(scores + group * size, size, index, two, both ? 2 : 1);
        scratch.group_scores[static_cast<std::size_t>(group)] = both ? two[0] + two[1] : two[0];
    }
    const auto kept = scratch.kept.begin();
    top_k_row(scratch.group_scores.data(), operation.groups, &*kept, scratch.best.data(),
              operation.top_groups);
    for (i64 group = 0; group < operation.groups; ++group) {
        if (std::find(kept, scratch.kept.end(), static_cast<i32>(group)) != scratch.kept.end()) continue;
        std::fill_n(scores + group * size, size, -std::numeric_limits<Real>::infinity());
    }
}

/// By biased scores and limited to groups; `value` is the score without the bias.
template <class Real>
void top_k_changed_row(const TopK& operation, const Real* scores, i32* index, Real* value,
                       TopKScratch<Real>& scratch) {
    const i64 columns = operation.scores.cols(), choices = operation.index.cols();
    scratch.scores.assign(scores, scores + columns);
    for (i64 i = 0; i < operation.bias.elements(); ++i)
        scratch.scores[static_cast<std::size_t>(i)] += operation.bias.as<Real>()[i];
    if (operation.top_groups < operation.groups) exclude_groups(operation, scratch);
    top_k_row(scratch.scores.data(), columns, index, value, choices);
    for (i64 k = 0; k < choices; ++k) value[k] = scores[index[k]];
}

template <class Real>
void top_k_rows(const TopK& operation, Range rows) {
    const i64 columns = operation.scores.cols(), choices = operation.index.cols();
    const bool plain = operation.bias.elements() == 0 && operation.top_groups == operation.groups;
    TopKScratch<Real> scratch;
    for (i64 row = rows.first; row < rows.last; ++row) {
        const Real* const scores = operation.scores.as<Real>() + row * columns;
        i32* const index = operation.index.as<i32>() + row * choices;
        Real* const value = operation.value.as<Real>() + row * choices;
        if (plain) {
            top_k_row(scores, columns, index, value, choices);
        } else {
            top_k_changed_row(operation, scores, index, value, scratch);
        }
    }
}

void check_slots(ConstTensorView slot, i64 slots, Range rows) {
    const i64 choices = slot.cols();
    for (i64 choice = rows.first * choices; choice < rows.last * choices; ++choice) {
        const i32 value = slot.as<i32>()[choice];
        MOESAIC_ASSERT(value >= -1 && value < slots, "slot {} of choice {}, rows {}", value, choice, slots);
    }
}

}  // namespace

void top_k(const TopK& operation, Range rows) {
    if (operation.scores.dtype == DType::f32) {
        top_k_rows<float>(operation, rows);
    } else {
        top_k_rows<double>(operation, rows);
    }
}

void group_by_key(const GroupByKey& operation) {
    const i64 positions = operation.key.elements(), groups = operation.counts.elements();
    const i32* key = operation.key.as<i32>();
    i64* counts = operation.counts.as<i64>();
    std::fill_n(counts, groups, i64{0});
    for (i64 position = 0; position < positions; ++position) {
        const i32 group = key[position];
        MOESAIC_ASSERT(group >= -1 && group < groups, "key {} at {}, groups {}", group, position, groups);
        if (group >= 0) ++counts[group];
    }
    std::vector<i64> next(static_cast<std::size_t>(groups), 0);
    for (std::size_t group = 1; group < next.size(); ++group)
        next[group] = next[group - 1] + counts[group - 1];
    for (i64 position = 0; position < positions; ++position) {
        if (key[position] < 0) continue;
        i64& place = next[static_cast<std::size_t>(key[position])];
        operation.order.as<i32>()[place++] = static_cast<i32>(position);
    }
}

void gather_rows(const GatherRows& operation, Range rows) {
    const i64 sources = operation.in.rows(), places = operation.out.rows();
    const bool placed = operation.place.shape.rank() > 0;
    for (i64 row = rows.first; row < rows.last; ++row) {
        const i64 source = operation.index.as<i32>()[row];
        MOESAIC_ASSERT(source >= -1 && source < sources, "index {} of row {}, sources {}", source, row,
                       sources);
        const i64 place = placed ? operation.place.as<i32>()[row] : row;
        MOESAIC_ASSERT(place >= 0 && place < places, "place {} of row {}, rows {}", place, row, places);
    }
    if (operation.accumulate) {
        HWY_DYNAMIC_DISPATCH(gather_add_target)(operation, rows);
    } else {
        HWY_DYNAMIC_DISPATCH(gather_target)(operation, rows);
    }
}

void combine_rows(const CombineRows& operation, Range rows) {
    check_slots(operation.slot, operation.rows.rows(), rows);
    HWY_DYNAMIC_DISPATCH(combine_target)(operation, rows);
}

void combine_rows_grad(const CombineRowsGrad& operation, Range rows) {
    check_slots(operation.slot, operation.d_rows.rows(), rows);
    HWY_DYNAMIC_DISPATCH(combine_grad_target)(operation, rows);
}

}  // namespace moesaic::cpu
#endif
