// Cutting products into tasks: columns are packed in panels once, then blocks of rows run over them.
#include "runtime/cpu/gemm.h"

#include <algorithm>

#include "runtime/cpu/scratch.h"

namespace moesaic {
namespace {

constexpr i64 kInnerBlock = 512;  // p of one piece, about: a panel's piece stays in the second-level cache
constexpr i64 kRowBlock = 128;    // rows of one task at most
constexpr i64 kColumnBlockPanels = 24;  // panels of one slice at most
constexpr i64 kSliceBytes = 4 << 20;    // packed columns of one slice, unless a single panel needs more
constexpr i64 kPackedBytes = 16 << 20;  // packed columns of one wave, unless a single slice needs more
constexpr i64 kTasksPerThread = 6;
constexpr i64 kColumnsTogether = 192;  // that work gets at once: few rows of a panel are whole cache lines

i64 divide_up(i64 value, i64 by) {
    return (value + by - 1) / by;
}
i64 round_up(i64 value, i64 to) {
    return divide_up(value, to) * to;
}

/// A range of columns of one product (with halves: of each), and how it is cut into tasks.
template <class T>
struct Slice {
    const MatrixProduct<T>* product;
    i64 first_column, columns;
    bool in_place;    // b is read where it stands, except for a last panel that is not full
    const T* packed;  // the slice's first panel
    i64 panels;       // of a half
    i64 first_panel;  // among those that the wave packs
    i64 rows_per_task, panels_per_task, row_tasks;
    i64 first_task;  // among those of the wave

    [[nodiscard]] i64 panels_to_pack() const { return product->packed_b ? 0 : panels * product->halves; }
    [[nodiscard]] i64 half_columns() const { return product->n / product->halves; }
    [[nodiscard]] double work_per_row() const {
        return static_cast<double>(columns * product->halves) * static_cast<double>(product->p);
    }
};

/// A panel of a slice: of half `half`, the `index`-th there.
struct PanelPlace {
    i64 half, index;
};
struct PanelRange {
    i64 first, last;
};

/// Slices that are packed together and then multiplied together.
template <class T>
class Wave {
  public:
    Wave(ThreadPool& pool, const GemmKernels<T>& kernels, std::span<Slice<T>> slices)
        : pool_(pool), kernels_(kernels), slices_(slices) {}

    void run() {
        plan();
        pool_.parallel_for(panels_, [&](i64 panel) { pack(panel); });
        pool_.parallel_for(tasks_, [&](i64 task) { compute(task); });
    }

  private:
    void plan();
    void plan_tasks(Slice<T>& slice, double work_per_task) const;
    void pack(i64 panel) const;
    void compute(i64 task) const;
    void hand_over(const Slice<T>& slice, const PanelProduct<T>& block, i64 first_row,
                   PanelRange panels) const;
    void compute_panel(const Slice<T>& slice, PanelProduct<T> block, i64 first_row, PanelPlace place) const;
    [[nodiscard]] const T* packed_panel(const Slice<T>& slice, PanelPlace place) const;
    void compute_part(const MatrixProduct<T>& product, PanelProduct<T> block, i64 first, i64 last) const;

    /// The slice that holds the wave's panel or task number `index`.
    const Slice<T>& slice_of(i64 index, i64 Slice<T>::*first) const {
        auto after =
            std::upper_bound(slices_.begin(), slices_.end(), index,
                             [first](i64 value, const Slice<T>& slice) { return value < slice.*first; });
        return *(after - 1);
    }

    ThreadPool& pool_;
    const GemmKernels<T>& kernels_;
    std::span<Slice<T>> slices_;
    i64 panels_ = 0, tasks_ = 0;
};

template <class T>
void Wave<T>::plan() {
    double work = 0;
    i64 elements = 0;
    for (const Slice<T>& slice : slices_) {
        work += static_cast<double>(slice.product->m) * slice.work_per_row();
        elements += slice.panels_to_pack() * kernels_.panel_columns * slice.product->p;
    }
    const double work_per_task =
        pool_.threads() == 1 ? work : work / static_cast<double>(kTasksPerThread * pool_.threads());
    const T* packed = scratch<T>(ScratchSlot::packed_columns, elements);
    for (Slice<T>& slice : slices_) {
        slice.packed = slice.product->packed_b ? slice.product->packed_b : packed;
        packed += slice.panels_to_pack() * kernels_.panel_columns * slice.product->p;
        slice.first_panel = panels_;
        panels_ += slice.panels_to_pack();
        plan_tasks(slice, work_per_task);
        slice.first_task = tasks_;
        tasks_ += slice.row_tasks * divide_up(slice.panels, slice.panels_per_task);
    }
}

/// Rows are cut first; columns only where the shortest sensible block of rows is still too much work.
template <class T>
void Wave<T>::plan_tasks(Slice<T>& slice, double work_per_task) const {
    const i64 wanted_rows = std::max<i64>(1, static_cast<i64>(work_per_task / slice.work_per_row()));
    const i64 least_rows = 4 * kernels_.row_tile;
    const i64 rows = std::clamp(round_up(wanted_rows, kernels_.row_tile), least_rows, kRowBlock);
    slice.rows_per_task = std::min(rows, slice.product->m);
    slice.row_tasks = divide_up(slice.product->m, slice.rows_per_task);
    slice.panels_per_task = slice.panels;
    if (wanted_rows < slice.rows_per_task) {
        const double panels =
            static_cast<double>(slice.panels * wanted_rows) / static_cast<double>(slice.rows_per_task);
        slice.panels_per_task = std::clamp<i64>(static_cast<i64>(panels), 1, slice.panels);
    }
}

/// Of a copy made beforehand, or of the wave's own.
template <class T>
const T* Wave<T>::packed_panel(const Slice<T>& slice, PanelPlace place) const {
    const i64 p = slice.product->p, first_column = place.index * kernels_.panel_columns;
    if (slice.product->packed_b) {
        return slice.packed + place.half * packed_elements<T>(p, slice.half_columns()) +
               (slice.first_column + first_column) * p;
    }
    return slice.packed + (place.half * slice.panels * kernels_.panel_columns + first_column) * p;
}

template <class T>
void Wave<T>::pack(i64 panel) const {
    const Slice<T>& slice = slice_of(panel, &Slice<T>::first_panel);
    const i64 number = panel - slice.first_panel;
    const PanelPlace place{number / slice.panels, number % slice.panels};
    const i64 first_column = place.index * kernels_.panel_columns;
    const i64 columns = std::min(kernels_.panel_columns, slice.columns - first_column);
    if (slice.in_place && columns == kernels_.panel_columns) return;
    const i64 column = place.half * slice.half_columns() + slice.first_column + first_column;
    kernels_.pack_panel(slice.product->b.from(0, column), slice.product->p, columns,
                        const_cast<T*>(packed_panel(slice, place)));
}

template <class T>
void Wave<T>::compute(i64 task) const {
    const Slice<T>& slice = slice_of(task, &Slice<T>::first_task);
    const MatrixProduct<T>& product = *slice.product;
    const i64 local = task - slice.first_task;
    const i64 first_row = local % slice.row_tasks * slice.rows_per_task;
    const i64 first_panel = local / slice.row_tasks * slice.panels_per_task;
    const i64 last_panel = std::min(slice.panels, first_panel + slice.panels_per_task);
    PanelProduct<T> block;
    block.rows = std::min(slice.rows_per_task, product.m - first_row);
    block.a = product.a.from(first_row, 0);
    if (block.a.column_index || (block.a.column_stride != 1 && last_panel - first_panel > 1)) {
        // Where the rows of a transposed a stand its columns are far apart, each on the same cache sets.
        T* const tiles =
            scratch<T>(ScratchSlot::packed_rows, round_up(block.rows, kernels_.row_tile) * product.p);
        kernels_.pack_rows(block.a, block.rows, product.p, tiles);
        block.a = {tiles, 1, kernels_.row_tile};
        block.a_tile_stride = kernels_.row_tile * product.p;
    }
    const i64 together = product.work ? std::max<i64>(1, kColumnsTogether / kernels_.panel_columns) : 1;
    if (product.sum || !product.c) {  // results stay in the cache
        block.c_row_stride = together * kernels_.panel_columns;
        block.c = scratch<T>(ScratchSlot::partial_sums, kRowBlock * block.c_row_stride);
    }
    for (i64 panel = first_panel; panel < last_panel; panel += together) {
        const i64 end = std::min(last_panel, panel + together), count = end - panel;
        for (i64 i = 0; i < count * product.halves; ++i) {
            PanelProduct<T> one = block;
            if (!product.c) one.c += i * kernels_.panel_columns;
            compute_panel(slice, one, first_row, {i / count, panel + i % count});
        }
        if (product.work) hand_over(slice, block, first_row, {panel, end});
    }
}

/// The finished columns of these panels, of all halves, to the product's work.
template <class T>
void Wave<T>::hand_over(const Slice<T>& slice, const PanelProduct<T>& block, i64 first_row,
                        PanelRange panels) const {
    const MatrixProduct<T>& product = *slice.product;
    const i64 column = panels.first * kernels_.panel_columns;
    FinishedBlock<T> finished;
    finished.product = product.number;
    finished.first_row = product.rows_before + first_row;
    finished.rows = block.rows;
    finished.first_column = slice.first_column + column;
    finished.columns = std::min(panels.last * kernels_.panel_columns, slice.columns) - column;
    finished.c = product.c ? product.c + first_row * product.c_row_stride + finished.first_column : block.c;
    finished.c_row_stride = product.c ? product.c_row_stride : block.c_row_stride;
    product.work->run(finished);
}

template <class T>
void Wave<T>::compute_panel(const Slice<T>& slice, PanelProduct<T> block, i64 first_row,
                            PanelPlace place) const {
    const MatrixProduct<T>& product = *slice.product;
    const i64 first_column = place.index * kernels_.panel_columns;
    const i64 column = place.half * slice.half_columns() + slice.first_column + first_column;
    block.columns = std::min(kernels_.panel_columns, slice.columns - first_column);
    if (slice.in_place && block.columns == kernels_.panel_columns) {
        block.panel = product.b.from(0, column).data;
        block.panel_stride = product.b.row_stride;
    } else {
        block.panel = packed_panel(slice, place);
        block.panel_stride = round_up(block.columns, kernels_.lanes);
    }
    if (!product.sum) {
        if (product.c) {
            block.c = product.c + first_row * product.c_row_stride + column;
            block.c_row_stride = product.c_row_stride;
        }
        block.accumulate = product.accumulate;
        compute_part(product, block, 0, product.p);
        return;
    }
    block.sum = product.sum + first_row * product.n + column;
    block.sum_row_stride = product.n;
    i64 first = 0;
    for (const i64 extent : product.parts) {
        if (extent > 0) compute_part(product, block, first, first + extent);
        first += extent;
    }
}

/// The addends [first, last) of a panel's block, piece by piece; only the last piece reaches the sum.
template <class T>
void Wave<T>::compute_part(const MatrixProduct<T>& product, PanelProduct<T> block, i64 first,
                           i64 last) const {
    const i64 pieces = std::max<i64>(1, (last - first + kInnerBlock / 2) / kInnerBlock);
    const i64 step = round_up(divide_up(last - first, pieces), 8);
    const StridedOperand<T> a = block.a;
    const T* const panel = block.panel;
    double* const sum = block.sum;
    for (i64 piece = first; piece < last; piece += step) {
        block.p = std::min(step, last - piece);
        block.a = a.from(0, piece);
        block.panel = panel + piece * block.panel_stride;
        block.accumulate = product.accumulate || piece > first;
        block.sum = piece + step < last ? nullptr : sum;
        if (block.panel_stride <= kernels_.panel_columns) {  // what follows in memory comes next
            block.next = block.panel + block.p * block.panel_stride;
            block.next_elements = block.p * block.panel_stride;
        }
        kernels_.multiply_panel(block);
    }
}

template <class T>
void clear(const MatrixProduct<T>& product) {
    for (i64 i = 0; i < product.m; ++i) std::fill_n(product.c + i * product.c_row_stride, product.n, T(0));
}

template <class T>
i64 columns_of_slice(const GemmKernels<T>& kernels, const MatrixProduct<T>& product) {
    const i64 panel_bytes = kernels.panel_columns * product.halves * product.p * static_cast<i64>(sizeof(T));
    return std::clamp<i64>(kSliceBytes / panel_bytes, 1, kColumnBlockPanels) * kernels.panel_columns;
}

}  // namespace

template <class T>
i64 packed_elements(i64 p, i64 n) {
    return p * round_up(n, gemm_kernels<T>().lanes);
}

template <class T>
void pack_matrix(ThreadPool& pool, const StridedOperand<T>& b, i64 p, i64 n, T* packed) {
    const GemmKernels<T>& kernels = gemm_kernels<T>();
    pool.parallel_for(divide_up(n, kernels.panel_columns), [&](i64 panel) {
        const i64 column = panel * kernels.panel_columns;
        kernels.pack_panel(b.from(0, column), p, std::min(kernels.panel_columns, n - column),
                           packed + column * p);
    });
}

template <class T>
void multiply_all(ThreadPool& pool, std::span<const MatrixProduct<T>> products) {
    const GemmKernels<T>& kernels = gemm_kernels<T>();
    i64 most_slices = 0;
    for (const MatrixProduct<T>& product : products) {
        if (product.p > 0)
            most_slices += divide_up(product.n / product.halves, columns_of_slice(kernels, product));
    }
    Slice<T>* const slices = scratch<Slice<T>>(ScratchSlot::slices, most_slices);
    std::size_t count = 0;
    i64 bytes = 0;
    auto flush = [&] {
        if (count > 0) Wave<T>(pool, kernels, {slices, count}).run();
        count = 0;
        bytes = 0;
    };
    const i64 bytes_per_wave = pool.threads() == 1 ? 1 : kPackedBytes;
    for (const MatrixProduct<T>& product : products) {
        if (product.m == 0 || product.n == 0) continue;
        if (product.p == 0) {
            if (!product.accumulate && !product.sum) clear(product);
            continue;
        }
        const i64 slice_columns = columns_of_slice(kernels, product), columns = product.n / product.halves;
        for (i64 first = 0; first < columns; first += slice_columns) {
            Slice<T> slice{};
            slice.product = &product;
            slice.first_column = first;
            slice.columns = std::min(slice_columns, columns - first);
            slice.panels = divide_up(slice.columns, kernels.panel_columns);
            slice.in_place = !product.packed_b && product.m <= 4 * kernels.row_tile &&
                             product.b.column_stride == 1 && !product.b.row_index;
            slices[count++] = slice;
            bytes += slice.panels_to_pack() * kernels.panel_columns * product.p * static_cast<i64>(sizeof(T));
            if (bytes >= bytes_per_wave) flush();
        }
    }
    flush();
}

template <class T>
void multiply(ThreadPool& pool, const MatrixProduct<T>& product) {
    multiply_all<T>(pool, {&product, 1});
}

template i64 packed_elements<float>(i64, i64);
template void pack_matrix(ThreadPool&, const StridedOperand<float>&, i64, i64, float*);
template void multiply_all(ThreadPool&, std::span<const MatrixProduct<float>>);
template void multiply(ThreadPool&, const MatrixProduct<float>&);
template i64 packed_elements<double>(i64, i64);
template void pack_matrix(ThreadPool&, const StridedOperand<double>&, i64, i64, double*);
template void multiply_all(ThreadPool&, std::span<const MatrixProduct<double>>);
template void multiply(ThreadPool&, const MatrixProduct<double>&);

}  // namespace moesaic
