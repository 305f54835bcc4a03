// What a product is cut into: slices of columns, tasks of some rows and panels, pieces of the sums.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/gemm_blocks.h"
#include "runtime/cpu/tile_products.h"

namespace moesaic::gemm {

inline i64 divide_up(i64 value, i64 by) {
    return (value + by - 1) / by;
}
inline i64 round_up(i64 value, i64 to) {
    return divide_up(value, to) * to;
}

/// The largest of the most equal parts, none of more than `most`, that `whole` can be cut into.
inline i64 equal_share(i64 whole, i64 most) {
    return divide_up(whole, divide_up(whole, most));
}

constexpr i64 kColumnBlockPanels = 48;  // panels of one slice at most
constexpr i64 kPackedBytes = 16 << 20;  // packed columns of a slice or wave, unless one panel needs more
/// So few rows that a task with less, about, would read panels for little: 32 with AVX-512, 16 else.
template <class T>
i64 few_rows(const GemmKernels<T>& kernels) {
    return round_up(4 * kernels.row_tile, 16);
}

constexpr i64 kTasksPerThread = 6, kLeastTasksPerThread = 4;
/// Multiply-adds of tiles that take about 20 microseconds: of smaller tasks the beginnings take a tenth.
constexpr double kWorthATask = 1 << 24;
/// Multiply-adds of a task, about, of `work` in all. Small products by tiles have fewer tasks, but one a
/// thread.
inline double work_per_task(double work, i64 threads, Bf16Products bf16) {
    if (threads == 1) return work;
    const double share = work / static_cast<double>(threads);
    if (bf16 != Bf16Products::tiles) return share / kTasksPerThread;
    return share / std::clamp(std::floor(share / kWorthATask), 1.0, static_cast<double>(kTasksPerThread));
}

/// A range of columns of one product (with halves: of each), and how it is cut into tasks.
template <class T>
struct Slice {
    const MatrixProduct<T>* product;
    i64 first_column, columns;
    bool in_place;      // b is read where it stands, except for a last panel that is not full
    bool is_left_over;  // threads share the rows of its few panels
    Bf16Products bf16;  // how pairs of bf16 are multiplied, which both operands are; or widened
    const T* packed;    // the slice's first panel
    i64 panels;         // of a half
    i64 first_panel;    // among those that the wave packs
    i64 most_rows;      // of a task
    i64 rows_per_task, panels_per_task, row_tasks;
    i64 first_task;  // among those of the wave

    [[nodiscard]] bool pairs() const { return bf16 != Bf16Products::widened; }
    [[nodiscard]] i64 elements_together() const { return pairs() ? 2 : 1; }
    /// Pieces of a sum begin at multiples of so many addends, for their order not to depend on where.
    [[nodiscard]] i64 addend_step() const { return bf16 == Bf16Products::tiles ? kAddendsOfTiles : 8; }
    /// Values of T, each an addend or a pair of them, that a sum has.
    [[nodiscard]] i64 values_of_sum() const { return divide_up(product->p, elements_together()); }
    [[nodiscard]] i64 panels_to_pack() const { return product->packed_b ? 0 : panels * product->halves; }
    [[nodiscard]] i64 half_columns() const { return product->n / product->halves; }
    [[nodiscard]] double work_per_row() const {
        return static_cast<double>(columns * product->halves) * static_cast<double>(product->p);
    }
};

/// How the columns of a product, of each half, are cut into slices. They are of one size, about: a narrow
/// last one would bring all rows into the cache for few columns. Where few rows make few tasks, panels that
/// cannot be dealt evenly to the threads are the last slice, cut by rows.
class SliceColumns {
  public:
    template <class T>
    SliceColumns(const GemmKernels<T>& kernels, const MatrixProduct<T>& product, int threads)
        : columns_(product.n / product.halves) {
        const i64 panel_bytes =
            kernels.panel_columns * product.halves * product.p * static_cast<i64>(sizeof(T));
        const i64 most = std::clamp<i64>(kPackedBytes / panel_bytes, 1, kColumnBlockPanels);
        const i64 panels = std::max<i64>(1, divide_up(columns_, kernels.panel_columns));
        slice_ = divide_up(panels, divide_up(panels, most)) * kernels.panel_columns;
        constexpr i64 kFewRounds = 8;
        if (product.m <= few_rows(kernels) && panels > threads && panels < kFewRounds * threads)
            left_over_from_ = (panels - panels % threads) * kernels.panel_columns;
        left_over_from_ = std::min(left_over_from_, columns_);
    }

    [[nodiscard]] i64 columns() const { return columns_; }
    [[nodiscard]] i64 most_slices() const { return divide_up(columns_, slice_) + 1; }
    [[nodiscard]] bool is_left_over(i64 first) const { return first >= left_over_from_; }
    /// Columns of the slice that begins at `first`.
    [[nodiscard]] i64 from(i64 first) const {
        return std::min(slice_, (is_left_over(first) ? columns_ : left_over_from_) - first);
    }

  private:
    i64 columns_, slice_, left_over_from_ = std::numeric_limits<i64>::max();
};

/// Whether panels of b can be read where they stand.
template <class T>
bool reads_in_place(const GemmKernels<T>& kernels, const MatrixProduct<T>& product) {
    return !product.packed_b && !product.b.is_narrow() && product.m <= few_rows(kernels) &&
           product.b.real.column_stride == 1 && !product.b.real.row_index;
}

/// Whether an operand's columns do not follow each other: an a like that is copied in register tiles, or
/// transposed.
template <class Stored>
bool has_columns_apart(const StridedOperand<Stored>& operand) {
    return operand.column_stride != 1 || operand.column_index;
}
template <class T>
bool reads_tiles(const MatrixProduct<T>& product) {
    return product.a.is_narrow() ? has_columns_apart(product.a.narrow) : has_columns_apart(product.a.real);
}

/// A task's rows are a multiple of so many, but for the last: what is copied in tiles is copied whole.
template <class T>
i64 rows_together(const Slice<T>& slice, const GemmKernels<T>& kernels) {
    if (slice.bf16 == Bf16Products::tiles) return 2 * kTileRows;
    return reads_tiles(*slice.product) ? kernels.row_tile : 1;
}

/// The number of a task's rows, and of its group of panels, among those of its slice.
struct TaskPlace {
    i64 rows, panel_group;
};

/// What a slice's task `local` takes. A thread finishes some rows before it takes others (they are in its
/// cache, and copied once where the sums are one piece), as long as all threads have rows; where all tasks
/// have the same, a thread's panels are neighbours: a line of the result that two of them share would go from
/// cache to cache.
template <class T>
TaskPlace place_of(const Slice<T>& slice, i64 local, i64 threads) {
    const i64 groups = divide_up(slice.panels, slice.panels_per_task);
    const i64 thread = local % threads, turn = local / threads;
    if (slice.row_tasks == 1)
        return {0, thread * (groups / threads) + std::min(thread, groups % threads) + turn};
    const i64 rows_of_all = slice.row_tasks / threads * threads, rest = local - rows_of_all * groups;
    if (rest < 0) return {turn / groups * threads + thread, turn % groups};
    const i64 rows_left = slice.row_tasks - rows_of_all;
    return {rows_of_all + rest % rows_left, rest / rows_left};
}

/// A panel of a slice: of half `half`, the `index`-th there.
struct PanelPlace {
    i64 half, index;
};
struct PanelRange {
    i64 first, last;
    [[nodiscard]] i64 count() const { return last - first; }
};

/// Addends [first, first + p) of a sum, or of a part of it that is summed on its own.
struct Piece {
    i64 first, p;
    i64 panel_row;  ///< the first one's in the panels: there every part begins with a pair of its own
    bool starts, ends;
    SumStart sum_start = SumStart::added;
};

/// A block of a slice's result: some rows of some panels. Panels come in groups of `together`, each group
/// with all halves; work gets a group at once.
template <class T>
struct Task {
    const Slice<T>& slice;
    i64 first_row = 0, rows = 0;
    PanelRange panels{};
    i64 together = 1;
    T* results = nullptr;  // where c is not: of result_panels panels in turn
    i64 result_panels = 0;

    [[nodiscard]] i64 steps() const { return panels.count() * slice.product->halves; }
    [[nodiscard]] PanelRange group(i64 step) const {
        const i64 first = panels.first + step / (together * slice.product->halves) * together;
        return {first, std::min(panels.last, first + together)};
    }
    [[nodiscard]] PanelPlace place(i64 step) const {
        const PanelRange of = group(step);
        const i64 within = step - (of.first - panels.first) * slice.product->halves;
        return {within / of.count(), of.first + within % of.count()};
    }
    [[nodiscard]] bool starts_group(i64 step) const { return step == 0 || ends_group(step - 1); }
    [[nodiscard]] bool ends_group(i64 step) const {
        return step + 1 == steps() || group(step + 1).first != group(step).first;
    }
};

}  // namespace moesaic::gemm
