// Cutting products into tasks: columns are packed in panels once, then blocks of rows run over them.
#include "runtime/cpu/gemm.h"

#include <algorithm>

#include "runtime/cpu/scratch.h"

namespace moesaic {
namespace {

constexpr i64 kInnerBlock = 256;        // p that is packed at a time: a panel stays in the second-level cache
constexpr i64 kRowBlock = 128;          // rows of one task at most
constexpr i64 kColumnBlockPanels = 24;  // panels of one slice at most
constexpr i64 kPackedBytes = 16 << 20;  // packed columns of one wave, unless a single slice needs more
constexpr i64 kTasksPerThread = 6;

i64 divide_up(i64 value, i64 by) {
    return (value + by - 1) / by;
}
i64 round_up(i64 value, i64 to) {
    return divide_up(value, to) * to;
}

/// A range of columns of one product, and how it is cut into tasks.
template <class T>
struct Slice {
    const MatrixProduct<T>* product;
    i64 first_column, columns;
    bool in_place;  // b is read where it stands, except for a last panel that is not full
    T* packed;
    i64 panels;
    i64 first_panel;  // among those of the wave
    i64 rows_per_task, panels_per_task, row_tasks;
    i64 first_task;  // among those of the wave
};

/// Slices that are packed together and then multiplied together.
template <class T>
class Wave {
  public:
    Wave(ThreadPool& pool, const GemmKernels<T>& kernels, std::span<Slice<T>> slices)
        : pool_(pool), kernels_(kernels), slices_(slices) {}

    void run() {
        i64 p = 0;
        for (const Slice<T>& slice : slices_) p = std::max(p, slice.product->p);
        plan();
        for (i64 first = 0; first < p; first += kInnerBlock) {
            pool_.parallel_for(panels_, [&](i64 panel) { pack(panel, first); });
            pool_.parallel_for(tasks_, [&](i64 task) { compute(task, first); });
        }
    }

  private:
    void plan();
    void plan_tasks(Slice<T>& slice, double work_per_task) const;
    void pack(i64 panel, i64 first_inner) const;
    void compute(i64 task, i64 first_inner) const;
    void compute_block(const Slice<T>& slice, i64 task, i64 first_inner, PanelProduct<T> block) const;

    StridedOperand<T> turned(const PanelProduct<T>& block) const;

    static i64 inner_count(const Slice<T>& slice, i64 first_inner) {
        return std::min(kInnerBlock, slice.product->p - first_inner);
    }
    /// The slice that holds the wave's panel or task number `index`.
    const Slice<T>& slice_of(i64 index, i64 Slice<T>::*first) const {
        auto after =
            std::upper_bound(slices_.begin(), slices_.end(), index,
                             [first](i64 value, const Slice<T>& slice) { return value < slice.*first; });
        return *(after - 1);
    }
    i64 panel_elements() const { return kernels_.panel_columns * kInnerBlock; }

    ThreadPool& pool_;
    const GemmKernels<T>& kernels_;
    std::span<Slice<T>> slices_;
    i64 panels_ = 0, tasks_ = 0;
};

template <class T>
void Wave<T>::plan() {
    double work = 0;
    for (const Slice<T>& slice : slices_)
        work += static_cast<double>(slice.product->m * slice.columns) * static_cast<double>(slice.product->p);
    const double work_per_task =
        pool_.threads() == 1 ? work : work / static_cast<double>(kTasksPerThread * pool_.threads());
    T* packed = nullptr;
    i64 elements = 0;
    for (const Slice<T>& slice : slices_) elements += slice.panels * panel_elements();
    packed = scratch<T>(ScratchSlot::packed_columns, elements);
    for (Slice<T>& slice : slices_) {
        slice.packed = packed;
        packed += slice.panels * panel_elements();
        slice.first_panel = panels_;
        panels_ += slice.panels;
        plan_tasks(slice, work_per_task);
        slice.first_task = tasks_;
        tasks_ += slice.row_tasks * divide_up(slice.panels, slice.panels_per_task);
    }
}

/// Rows are cut first; columns only where the shortest sensible block of rows is still too much work.
template <class T>
void Wave<T>::plan_tasks(Slice<T>& slice, double work_per_task) const {
    const double work_per_row = static_cast<double>(slice.columns) * static_cast<double>(slice.product->p);
    const i64 wanted_rows = std::max<i64>(1, static_cast<i64>(work_per_task / work_per_row));
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

template <class T>
void Wave<T>::pack(i64 panel, i64 first_inner) const {
    const Slice<T>& slice = slice_of(panel, &Slice<T>::first_panel);
    if (first_inner >= slice.product->p) return;
    const i64 index = panel - slice.first_panel;
    const i64 first_column = index * kernels_.panel_columns;
    const i64 columns = std::min(kernels_.panel_columns, slice.columns - first_column);
    if (slice.in_place && columns == kernels_.panel_columns) return;
    kernels_.pack_panel(slice.product->b.from(first_inner, slice.first_column + first_column),
                        inner_count(slice, first_inner), columns, slice.packed + index * panel_elements());
}

template <class T>
void Wave<T>::compute(i64 task, i64 first_inner) const {
    const Slice<T>& slice = slice_of(task, &Slice<T>::first_task);
    const MatrixProduct<T>& product = *slice.product;
    if (first_inner >= product.p) return;
    const i64 local = task - slice.first_task;
    const i64 first_row = local % slice.row_tasks * slice.rows_per_task;
    PanelProduct<T> block;
    block.rows = std::min(slice.rows_per_task, product.m - first_row);
    block.p = inner_count(slice, first_inner);
    block.a = product.a.from(first_row, first_inner);
    block.c = product.c + first_row * product.c_row_stride + slice.first_column;
    block.c_row_stride = product.c_row_stride;
    block.accumulate = product.accumulate || first_inner > 0;
    compute_block(slice, local / slice.row_tasks, first_inner, block);
}

/// A transposed a is turned first: its columns lie so far apart that each would fall on the same cache sets.
template <class T>
StridedOperand<T> Wave<T>::turned(const PanelProduct<T>& block) const {
    const i64 stride = round_up(block.p, kernels_.lanes);
    T* const rows = scratch<T>(ScratchSlot::packed_rows, block.rows * stride);
    kernels_.pack_panel(block.a, block.rows, block.p, rows);
    return {rows, stride, 1};
}

template <class T>
void Wave<T>::compute_block(const Slice<T>& slice, i64 task, i64 first_inner, PanelProduct<T> block) const {
    const i64 last_panel = std::min(slice.panels, (task + 1) * slice.panels_per_task);
    if (block.a.column_stride != 1 && last_panel - task * slice.panels_per_task > 1) block.a = turned(block);
    T* const c = block.c;
    for (i64 panel = task * slice.panels_per_task; panel < last_panel; ++panel) {
        const i64 first_column = panel * kernels_.panel_columns;
        block.columns = std::min(kernels_.panel_columns, slice.columns - first_column);
        block.c = c + first_column;
        if (slice.in_place && block.columns == kernels_.panel_columns) {
            block.panel = slice.product->b.from(first_inner, slice.first_column + first_column).data;
            block.panel_stride = slice.product->b.row_stride;
        } else {
            block.panel = slice.packed + panel * panel_elements();
            block.panel_stride = round_up(block.columns, kernels_.lanes);
        }
        kernels_.multiply_panel(block);
    }
}

template <class T>
void clear(const MatrixProduct<T>& product) {
    for (i64 i = 0; i < product.m; ++i) std::fill_n(product.c + i * product.c_row_stride, product.n, T(0));
}

}  // namespace

template <class T>
void multiply_all(ThreadPool& pool, std::span<const MatrixProduct<T>> products) {
    const GemmKernels<T>& kernels = gemm_kernels<T>();
    const i64 slice_columns = kColumnBlockPanels * kernels.panel_columns;
    i64 most_slices = 0;
    for (const MatrixProduct<T>& product : products) most_slices += divide_up(product.n, slice_columns);
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
            if (!product.accumulate) clear(product);
            continue;
        }
        for (i64 first = 0; first < product.n; first += slice_columns) {
            Slice<T> slice{};
            slice.product = &product;
            slice.first_column = first;
            slice.columns = std::min(slice_columns, product.n - first);
            slice.panels = divide_up(slice.columns, kernels.panel_columns);
            slice.in_place = product.m <= 4 * kernels.row_tile && product.b.column_stride == 1;
            slices[count++] = slice;
            bytes += slice.panels * kernels.panel_columns * kInnerBlock * static_cast<i64>(sizeof(T));
            if (bytes >= bytes_per_wave) flush();
        }
    }
    flush();
}

template <class T>
void multiply(ThreadPool& pool, const MatrixProduct<T>& product) {
    multiply_all<T>(pool, {&product, 1});
}

template void multiply_all(ThreadPool&, std::span<const MatrixProduct<float>>);
template void multiply_all(ThreadPool&, std::span<const MatrixProduct<double>>);
template void multiply(ThreadPool&, const MatrixProduct<float>&);
template void multiply(ThreadPool&, const MatrixProduct<double>&);

}  // namespace moesaic
