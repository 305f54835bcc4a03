#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/activation.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <hwy/cache_control.h>

#include "runtime/bfloat16.h"

#include "runtime/cpu/activation.h"
#include "runtime/cpu/activation_kinds-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

/// A row that will be worked on soon: rows of a block are far apart, which no hardware foresees.
template <class Stored, int kWrite>
HWY_INLINE void fetch_row(const Stored* row, i64 columns) {
    constexpr i64 kLine = 64;
    const char* const first = reinterpret_cast<const char*>(row);
    for (i64 byte = 0; byte < columns * static_cast<i64>(sizeof(Stored)); byte += kLine)
        __builtin_prefetch(first + byte, kWrite, 3);
}

/// The rows of x and dx below these.
template <class Stored>
HWY_INLINE void fetch_rows(const ActivationBlock& block, const Stored* x, Stored* dx) {
    for (i64 half = 0; half < activation_halves(block.kind); ++half) {
        const i64 ahead = block.x_row_stride + half * block.half;
        fetch_row<Stored, 1>(dx + ahead, block.columns);
        if (dx != x) fetch_row<Stored, 0>(x + ahead, block.columns);
    }
}

template <class Kind, class Stored>
void value_of_row(const Kind& kind, const Stored* gate, const Stored* up, Stored* y, i64 columns) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const auto g = load(d, gate + i, columns - i);
        const auto u = Kind::kGated ? load(d, up + i, columns - i) : g;
        store(d, kind.value(d, g, u), y + i, columns - i);
    }
}

template <class Kind, class Stored>
void grad_of_row(const Kind& kind, const Stored* gate, i64 half, const Stored* dy, Stored* d_gate,
                 i64 columns) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const i64 rest = columns - i;
        const auto g = load(d, gate + i, rest);
        const auto u = Kind::kGated ? load(d, gate + half + i, rest) : g;
        const auto gradients = kind.grad(d, g, u, load(d, dy + i, rest));
        store(d, gradients.gate, d_gate + i, rest);
        if (Kind::kGated) store(d, gradients.up, d_gate + half + i, rest);
    }
}

void activate_target(const ActivationBlock& block, const void* x, void* y) {
    for_stored(block.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        for_kind(block, [&](const auto& kind) HWY_ATTR {
            for (i64 row = 0; row < block.rows; ++row) {
                const Stored* const gate = static_cast<const Stored*>(x) + row * block.x_row_stride;
                Stored* const result = static_cast<Stored*>(y) + row * block.y_row_stride;
                fetch_row<Stored, 1>(result + block.y_row_stride, block.columns);
                value_of_row(kind, gate, gate + block.half, result, block.columns);
            }
        });
    });
}

void activate_backward_target(const ActivationBlock& block, const void* x, const void* dy, void* dx) {
    for_stored(block.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        for_kind(block, [&](const auto& kind) HWY_ATTR {
            for (i64 row = 0; row < block.rows; ++row) {
                const Stored* const gate = static_cast<const Stored*>(x) + row * block.x_row_stride;
                Stored* const d_gate = static_cast<Stored*>(dx) + row * block.x_row_stride;
                fetch_rows(block, gate, d_gate);
                grad_of_row(kind, gate, block.half, static_cast<const Stored*>(dy) + row * block.y_row_stride,
                            d_gate, block.columns);
            }
        });
    });
}

/// Rounds a vector of a product's result.
template <class Rounding, class D>
HWY_INLINE BFloat16Bits<D> rounded_result(D d, const float* from, i64 rest) {
    return Rounding::round(d, load(d, from, rest));
}

template <bool kStreamed, class D>
HWY_INLINE void put_result(D /*d*/, BFloat16Bits<D> value, BFloat16* to, i64 rest) {
    put<kStreamed>(hn::Rebind<std::uint16_t, D>(), value, &to->bits, rest);
}

template <bool kStreamed, class Rounding, class Kind>
void round_and_value_of_row(const Kind& kind, const float* c, i64 c_half, BFloat16* x, i64 half, BFloat16* y,
                            i64 columns) {
    const FullVector<float> d;
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const i64 rest = columns - i;
        const auto gate = rounded_result<Rounding>(d, c + i, rest);
        put_result<kStreamed>(d, gate, x + i, rest);
        auto up = gate;
        if (Kind::kGated) {
            up = rounded_result<Rounding>(d, c + c_half + i, rest);
            put_result<kStreamed>(d, up, x + half + i, rest);
        }
        const auto value = kind.value(d, widened_bits(d, gate), widened_bits(d, up));
        put_result<false>(d, Rounding::round(d, value), y + i, rest);
    }
}

/// Whether every vector of these rows may be streamed.
bool rows_are_aligned(const ActivationBlock& block, const BFloat16* x) {
    constexpr i64 kElements = 32 / sizeof(BFloat16);
    return reinterpret_cast<std::uintptr_t>(x) % 32 == 0 && block.x_row_stride % kElements == 0 &&
           block.half % kElements == 0;
}

void round_and_activate_target(const ActivationBlock& block, const ProductRows& c, BFloat16* x, BFloat16* y) {
    const bool streamed = c.streamed && rows_are_aligned(block, x);
    for_kind(block, [&](const auto& kind) HWY_ATTR {
        with_rounding([&](auto rounding) HWY_ATTR {
            using Rounding = decltype(rounding);
            for (i64 row = 0; row < block.rows; ++row) {
                const float* const from = c.data + row * c.row_stride;
                BFloat16* const to = x + row * block.x_row_stride;
                BFloat16* const result = y + row * block.y_row_stride;
                fetch_row<BFloat16, 1>(result + block.y_row_stride, block.columns);
                if (streamed) {
                    round_and_value_of_row<true, Rounding>(kind, from, c.half, to, block.half, result,
                                                           block.columns);
                } else {
                    round_and_value_of_row<false, Rounding>(kind, from, c.half, to, block.half, result,
                                                            block.columns);
                }
            }
        });
    });
    if (streamed) hwy::FlushStream();  // before other threads may read
}

template <class Rounding, class Kind>
void rounded_grad_of_row(const Kind& kind, const BFloat16* gate, i64 half, const float* dy, BFloat16* d_gate,
                         i64 columns) {
    const FullVector<float> d;
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const i64 rest = columns - i;
        const auto g = load(d, gate + i, rest);
        const auto u = Kind::kGated ? load(d, gate + half + i, rest) : g;
        const auto gradients = kind.grad(d, g, u, widened_bits(d, rounded_result<Rounding>(d, dy + i, rest)));
        put_result<false>(d, Rounding::round(d, gradients.gate), d_gate + i, rest);
        if (Kind::kGated) put_result<false>(d, Rounding::round(d, gradients.up), d_gate + half + i, rest);
    }
}

void round_and_activate_backward_target(const ActivationBlock& block, const BFloat16* x,
                                        const ProductRows& dy, BFloat16* dx) {
    for_kind(block, [&](const auto& kind) HWY_ATTR {
        with_rounding([&](auto rounding) HWY_ATTR {
            for (i64 row = 0; row < block.rows; ++row) {
                const i64 first = row * block.x_row_stride;
                fetch_rows(block, x + first, dx + first);
                rounded_grad_of_row<decltype(rounding)>(
                    kind, x + first, block.half, dy.data + row * dy.row_stride, dx + first, block.columns);
            }
        });
    });
}

/// sum of dy * min(x, 0) over a row.
double slope_grad_target(ConstTensorView x, ConstTensorView dy, i64 row) {
    double sum = 0;
    for_stored(x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const FullVector<RealOf<Stored>> d;
        const Stored* const values = x.as<Stored>() + row * x.cols();
        const Stored* const gradients = dy.as<Stored>() + row * x.cols();
        sum = static_cast<double>(
            sum_over_columns(d, x.cols(), [&](i64 column, i64 rest, auto running) HWY_ATTR {
                const auto value = load(d, values + column, rest);
                const auto below = hn::IfThenZeroElse(hn::Gt(value, hn::Zero(d)), value);
                return hn::MulAdd(load(d, gradients + column, rest), below, running);
            }));
    });
    return sum;
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(activate_target);
HWY_EXPORT(activate_backward_target);
HWY_EXPORT(round_and_activate_target);
HWY_EXPORT(round_and_activate_backward_target);
HWY_EXPORT(slope_grad_target);

namespace {

/// Calls visit(group, first row, rows) for the parts of `rows` that lie in one group each; all of them are
/// one part where there are no groups.
template <class Visit>
void for_each_group(std::span<const i64> rows_per_group, Range rows, Visit visit) {
    if (rows_per_group.empty()) return visit(i64{0}, rows.first, rows.last - rows.first);
    i64 begin = 0;
    for (std::size_t group = 0; group < rows_per_group.size(); ++group) {
        const i64 end = begin + rows_per_group[group];
        const i64 first = std::max(begin, rows.first), last = std::min(end, rows.last);
        if (first < last) visit(static_cast<i64>(group), first, last - first);
        begin = end;
    }
}

template <class View>
auto row_of(const View& view, i64 row) {
    return view.slice_rows(row, 1).data;
}

}  // namespace

double slope_of(ConstTensorView slope, i64 group) {
    if (!slope.data) return 0;
    if (slope.dtype == DType::f64) return slope.as<double>()[group];
    if (slope.dtype == DType::bf16) return static_cast<double>(widened(slope.as<BFloat16>()[group]));
    return static_cast<double>(slope.as<float>()[group]);
}

void activate(const ActivationBlock& block, const void* x, void* y) {
    HWY_DYNAMIC_DISPATCH(activate_target)(block, x, y);
}
void activate_backward(const ActivationBlock& block, const void* x, const void* dy, void* dx) {
    HWY_DYNAMIC_DISPATCH(activate_backward_target)(block, x, dy, dx);
}

void round_and_activate(const ActivationBlock& block, const ProductRows& c, BFloat16* x, BFloat16* y) {
    HWY_DYNAMIC_DISPATCH(round_and_activate_target)(block, c, x, y);
}
void round_and_activate_backward(const ActivationBlock& block, const BFloat16* x, const ProductRows& dy,
                                 BFloat16* dx) {
    HWY_DYNAMIC_DISPATCH(round_and_activate_backward_target)(block, x, dy, dx);
}

void activation(const Activation& operation, std::span<const i64> rows_per_group, Range rows) {
    const i64 width = operation.y.cols();
    for_each_group(rows_per_group, rows, [&](i64 group, i64 first, i64 count) {
        activate({operation.kind, operation.x.dtype, count, width, operation.x.cols(), width, width,
                  slope_of(operation.slope, group)},
                 row_of(operation.x, first), row_of(operation.y, first));
    });
}

void activation_grad(const ActivationGrad& operation, std::span<const i64> rows_per_group, Range rows) {
    const i64 width = operation.dy.cols();
    for_each_group(rows_per_group, rows, [&](i64 group, i64 first, i64 count) {
        activate_backward({operation.kind, operation.x.dtype, count, width, operation.x.cols(), width, width,
                           slope_of(operation.slope, group)},
                          row_of(operation.x, first), row_of(operation.dy, first),
                          row_of(operation.dx, first));
    });
}

void slope_grad(const ActivationGrad& operation, std::span<const i64> rows_per_group, Range groups) {
    const auto kernel = HWY_DYNAMIC_DISPATCH(slope_grad_target);
    for_each_group(rows_per_group, {0, operation.x.rows()}, [&](i64 group, i64 first, i64 count) {
        if (group < groups.first || group >= groups.last) return;
        double& sum = operation.d_slope.as<double>()[group];
        for (i64 row = first; row < first + count; ++row) sum += kernel(operation.x, operation.dy, row);
    });
}

}  // namespace moesaic::cpu
#endif
