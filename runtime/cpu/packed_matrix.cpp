// Copies of weights in the order in which products read them.
#include <hwy/cache_control.h>

#include <cstdint>
#include <numeric>
#include <type_traits>

#include "runtime/cpu/gemm.h"
#include "runtime/cpu/gemm_tasks.h"

namespace moesaic {

using gemm::divide_up;
using gemm::round_up;

template <class T>
i64 packed_elements(i64 p, i64 n) {
    return p * round_up(n, gemm_kernels<T>().lanes);
}
template <>
i64 packed_elements<BFloat16>(i64 p, i64 n) {
    return packed_elements<float>(round_up(p, 2), n);
}

namespace {

/// Some rows of a weight at a time, both copies of them one after the other: the second finds them in the
/// cache.
template <class T>
class Packing {
  public:
    explicit Packing(const WeightCopies<T>& copies) : copies_(copies) {
        // A part of a plain copy of pairs begins at an even row; a second half may not.
        const i64 half = copies.n / copies.halves;
        const bool parts = copies.halves == 1 || half % kTogether == 0;
        span_ = parts ? half : copies.n;
        rows_ = parts ? rows_of_task() : copies.n;
        streams_ = copies.past_caches && is_aligned(copies.transposed) && is_aligned(copies.plain);
    }

    [[nodiscard]] i64 tasks() const { return copies_.groups * tasks_of_group(); }

    void run(i64 task) const {
        const i64 group = task / tasks_of_group(), place = task % tasks_of_group();
        const i64 span = place / divide_up(span_, rows_), first = place % divide_up(span_, rows_) * rows_;
        const i64 last = std::min(span_, first + rows_);
        if (copies_.transposed) pack_transposed(group, span * span_ + first, span * span_ + last);
        if (copies_.plain) pack_plain(group, span * span_ + first, span * span_ + last);
        if (streams_) hwy::FlushStream();  // before other threads may read
    }

  private:
    static constexpr bool kNarrow = std::is_same_v<T, BFloat16>;
    static constexpr i64 kTogether = kNarrow ? 2 : 1;

    /// Whole panels of the transposed copy; more than one where rows are so short that calls would show.
    [[nodiscard]] i64 rows_of_task() const {
        constexpr i64 kBytes = 32 << 10;
        const i64 panel = std::lcm(kernels_.panel_columns, kTogether);
        return panel * std::max<i64>(1, kBytes / (panel * copies_.p * i64{sizeof(T)}));
    }

    static bool is_aligned(const T* copy) { return reinterpret_cast<std::uintptr_t>(copy) % 64 == 0; }
    [[nodiscard]] i64 tasks_of_group() const { return copies_.n / span_ * divide_up(span_, rows_); }
    [[nodiscard]] const T* weight(i64 group) const { return copies_.weight + group * copies_.n * copies_.p; }

    void pack_panel(const StridedOperand<T>& b, i64 p, i64 columns, T* to) const {
        if constexpr (kNarrow) {
            const auto pack = streams_ ? kernels_.narrow.stream_pairs : kernels_.narrow.pack_pairs;
            pack(b, p, columns, pair_order(bf16_products()), to);
        } else {
            (streams_ ? kernels_.stream_panel : kernels_.pack_panel)(b, p, columns, to);
        }
    }

    /// Rows are columns there.
    void pack_transposed(i64 group, i64 first, i64 last) const {
        const i64 p = copies_.p, half_rows = copies_.n / copies_.halves;
        const StridedOperand<T> b = operand(weight(group), p, true);
        for (i64 row = first; row < last;) {
            const i64 half = row / half_rows, column = row % half_rows;
            const i64 columns = std::min({kernels_.panel_columns, half_rows - column, last - row});
            pack_panel(b.from(0, row), p, columns,
                       copies_.transposed +
                           (group * copies_.halves + half) * packed_elements<T>(p, half_rows) +
                           column * round_up(p, kTogether));
            row += columns;
        }
    }

    void pack_plain(i64 group, i64 first, i64 last) const {
        const i64 n = copies_.n, p = copies_.p;
        const StridedOperand<T> b = operand(weight(group), p);
        T* const copy = copies_.plain + group * packed_elements<T>(n, p);
        for (i64 column = 0; column < p; column += kernels_.panel_columns) {
            const i64 columns = std::min(kernels_.panel_columns, p - column);
            pack_panel(b.from(first, column), last - first, columns,
                       copy + column * round_up(n, kTogether) + first * round_up(columns, kernels_.lanes));
        }
    }

    const WeightCopies<T>& copies_;
    const GemmKernels<std::conditional_t<kNarrow, float, T>>& kernels_ =
        gemm_kernels<std::conditional_t<kNarrow, float, T>>();
    i64 span_ = 0, rows_ = 0;  // a task has so many rows of a span, which is a group's or a half's
    bool streams_ = false;
};

}  // namespace

template <class T>
void pack_weight(ThreadPool& pool, const WeightCopies<T>& copies) {
    if (copies.n == 0 || copies.p == 0) return;
    const Packing<T> packing(copies);
    pool.parallel_for(packing.tasks(), [&](i64 task) { packing.run(task); });
}

template i64 packed_elements<float>(i64, i64);
template void pack_weight(ThreadPool&, const WeightCopies<float>&);
template void pack_weight(ThreadPool&, const WeightCopies<BFloat16>&);
template i64 packed_elements<double>(i64, i64);
template void pack_weight(ThreadPool&, const WeightCopies<double>&);

}  // namespace moesaic
