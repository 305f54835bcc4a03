// Cutting products into tasks: columns are packed in panels once, then blocks of rows run over them.
#include "runtime/cpu/gemm.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <type_traits>

#include "runtime/base/error.h"
#include "runtime/base/host_memory.h"
#include "runtime/cpu/gemm_operands.h"
#include "runtime/cpu/gemm_tasks.h"
#include "runtime/cpu/onednn.h"
#include "runtime/cpu/scratch.h"

namespace moesaic {
namespace {

using namespace gemm;

constexpr i64 kColumnsTogether = 192;  // that work gets at once: few rows of a panel are whole cache lines

/// Rows of one of the slice's tasks at most. Blocks of work and what is summed stay in the cache as results
/// do that several pieces add to.
template <class T>
i64 most_rows(const Slice<T>& slice, const GemmKernels<T>& kernels, i64 threads) {
    constexpr i64 kBytes = sizeof(T);
    const MatrixProduct<T>& product = *slice.product;
    const bool one_piece = is_one_piece(slice.values_of_sum(), kBytes);
    if (product.work || product.sum || (!product.c && !one_piece)) return kRowBlock;
    // Tiles read panels so fast that those need as much of the cache as the rows.
    const i64 shares = slice.bf16 == Bf16Products::tiles ? 2 : 1;
    const i64 row_bytes = shares * kBytes * (one_piece ? slice.values_of_sum() : inner_block(kBytes));
    return gemm::most_rows(product.m, threads,
                           rows_over_panels(cache_bytes(), row_bytes, kernels.panel_columns));
}

/// Calls use(addends) for each part of the sums that is not empty.
template <class T, class Use>
void for_each_part(const MatrixProduct<T>& product, const Use& use) {
    if (!product.sum) return use(product.p);
    for (const i64 part : product.parts)
        if (part > 0) use(part);
}

/// Slices that are packed together and then multiplied together.
template <class T>
class Wave {
  public:
    Wave(ThreadPool& pool, const GemmKernels<T>& kernels, std::span<Slice<T>> slices, i64 sum_bytes)
        : pool_(pool), kernels_(kernels), slices_(slices), sum_bytes_(sum_bytes) {}

    void run() {
        plan();
        pool_.parallel_for(panels_, [&](i64 panel) { pack(panel); });
        pool_.parallel_for(tasks_, [&](i64 task) { compute(task); });
    }

  private:
    void plan();
    void plan_tasks(Slice<T>& slice, double work_per_task, bool many) const;
    void pack(i64 panel) const;
    void compute(i64 number) const;
    [[nodiscard]] Task<T> task_of(i64 number) const;
    [[nodiscard]] SumStart sum_start(const MatrixProduct<T>& product) const;
    void compute_part(const Task<T>& task, Piece part) const;
    void compute_piece(const Task<T>& task, const Piece& piece) const;
    void compute_panel(const Task<T>& task, const Piece& piece, i64 step, PanelProduct<T> block) const;
    [[nodiscard]] ResultBlock<T> block_of(const Task<T>& task, PanelRange panels) const;
    /// Where a task keeps the results of a panel of its own.
    [[nodiscard]] T* results_of(const Task<T>& task, PanelPlace place) const {
        return task.results + place.half * results_half(task) +
               (place.index - task.panels.first) % task.result_panels * kernels_.panel_columns;
    }
    [[nodiscard]] i64 results_half(const Task<T>& task) const {
        return task.result_panels * kernels_.panel_columns;
    }
    [[nodiscard]] i64 results_row_stride(const Task<T>& task) const {
        return task.slice.product->halves * results_half(task);
    }

    /// The slice that holds the wave's panel or task number `index`.
    const Slice<T>& slice_of(i64 index, i64 Slice<T>::*first) const {
        auto after =
            std::upper_bound(slices_.begin(), slices_.end(), index,
                             [first](i64 value, const Slice<T>& slice) { return value < slice.*first; });
        return *(after - 1);
    }

    ThreadPool& pool_;
    const GemmKernels<T>& kernels_;
    TaskOperands<T> operands_{kernels_};
    std::span<Slice<T>> slices_;
    i64 panels_ = 0, tasks_ = 0;
    i64 sum_bytes_;  // of all the call's products
};

template <class T>
void Wave<T>::plan() {
    double work = 0;
    i64 elements = 0, blocks = 0;  // of a panel and as many rows as a task may have
    for (Slice<T>& slice : slices_) {
        slice.most_rows = most_rows(slice, kernels_, pool_.threads());
        blocks += divide_up(slice.product->m, slice.most_rows) * slice.panels;
        work += static_cast<double>(slice.product->m) * slice.work_per_row();
        elements += slice.panels_to_pack() * kernels_.panel_columns * slice.product->p;
    }
    const i64 threads = pool_.threads();
    const double per_task = work_per_task(work, threads, slices_.front().bf16);
    const bool many = blocks >= kTasksPerThread * threads ||
                      (blocks >= kLeastTasksPerThread * threads && blocks % threads == 0);
    // Rows of an expert can be addends, so that routing decides: room for all at once, which costs no memory
    // until it is written.
    constexpr i64 kMost = 2 * kPackedBytes / static_cast<i64>(sizeof(T));
    const T* packed = scratch<T>(ScratchSlot::packed_columns, elements == 0 ? 0 : std::max(elements, kMost));
    for (Slice<T>& slice : slices_) {
        slice.packed = slice.product->packed_b ? slice.product->packed_b.real : packed;
        packed += slice.panels_to_pack() * kernels_.panel_columns * slice.product->p;
        slice.first_panel = panels_;
        panels_ += slice.panels_to_pack();
        plan_tasks(slice, per_task, many);
        slice.first_task = tasks_;
        tasks_ += slice.row_tasks * divide_up(slice.panels, slice.panels_per_task);
    }
}

/// Columns are cut before rows: every task of some rows reads all its panels anew, from memory where experts
/// have few rows. Rows are cut further only where there would be too few tasks.
template <class T>
void Wave<T>::plan_tasks(Slice<T>& slice, double work_per_task, bool many) const {
    const i64 wanted_rows = std::max<i64>(1, static_cast<i64>(work_per_task / slice.work_per_row()));
    const i64 least_rows = many ? slice.most_rows : few_rows(kernels_);
    const i64 rows = slice.is_left_over ? divide_up(slice.product->m, pool_.threads())
                                        : std::clamp(wanted_rows, least_rows, slice.most_rows);
    const i64 tile = rows_together(slice, kernels_);
    const i64 tiles = divide_up(slice.product->m, tile), threads = pool_.threads();
    const i64 tasks = divide_up(tiles, std::max<i64>(1, rows / tile));
    // Of a single product as many for every thread, which takes all panels of its rows.
    const bool alone = slices_.front().product == slices_.back().product;
    slice.rows_per_task =
        tile * divide_up(tiles, alone && tasks > threads ? round_up(tasks, threads) : tasks);
    slice.row_tasks = divide_up(slice.product->m, slice.rows_per_task);
    slice.panels_per_task = slice.panels;
    if (wanted_rows < slice.rows_per_task) {
        const double panels =
            static_cast<double>(slice.panels * wanted_rows) / static_cast<double>(slice.rows_per_task);
        slice.panels_per_task =
            equal_share(slice.panels, std::clamp<i64>(static_cast<i64>(panels), 1, slice.panels));
    }
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
    T* const panel_of_place = const_cast<T*>(operands_.packed_panel(slice, place));
    const ProductOperand<T>& b = slice.product->b;
    if (slice.pairs()) {
        i64 first = 0, panel_row = 0;
        for_each_part(*slice.product, [&](i64 part) {
            auto* const pairs =
                reinterpret_cast<BFloat16*>(panel_of_place + panel_row * round_up(columns, kernels_.lanes));
            kernels_.narrow.pack_pairs(b.narrow.from(first, column), part, columns, pair_order(slice.bf16),
                                       pairs);
            first += part;
            panel_row += divide_up(part, 2);
        });
    } else if (b.is_narrow()) {
        kernels_.narrow.pack_panel(b.narrow.from(0, column), slice.product->p, columns, panel_of_place);
    } else {
        kernels_.pack_panel(b.real.from(0, column), slice.product->p, columns, panel_of_place);
    }
}

template <class T>
Task<T> Wave<T>::task_of(i64 number) const {
    const Slice<T>& slice = slice_of(number, &Slice<T>::first_task);
    const MatrixProduct<T>& product = *slice.product;
    const TaskPlace place = place_of(slice, number - slice.first_task, pool_.threads());
    Task<T> task{slice};
    task.first_row = place.rows * slice.rows_per_task;
    task.rows = std::min(slice.rows_per_task, product.m - task.first_row);
    task.panels.first = place.panel_group * slice.panels_per_task;
    task.panels.last = std::min(slice.panels, task.panels.first + slice.panels_per_task);
    if (product.work) task.together = std::max<i64>(1, kColumnsTogether / kernels_.panel_columns);
    if (product.sum ||
        !product.c) {  // results stay in the cache; what one piece completes, only for the work
        const bool complete = !product.sum && is_one_piece(slice.values_of_sum(), sizeof(T));
        task.result_panels = complete ? task.together : task.panels.count();
        task.results = scratch<T>(ScratchSlot::partial_sums, task.rows * results_row_stride(task));
    }
    return task;
}

template <class T>
void Wave<T>::compute(i64 number) const {
    const Task<T> task = task_of(number);
    const MatrixProduct<T>& product = *task.slice.product;
    const TileScope tiles(task.slice.bf16 == Bf16Products::tiles);
    Piece part{0, 0, 0, true, true, sum_start(product)};
    for_each_part(product, [&](i64 addends) {
        part.p = addends;
        compute_part(task, part);
        part.first += addends;
        part.panel_row += divide_up(addends, task.slice.elements_together());
        part.sum_start = SumStart::added;
    });
    if (sum_start(product) == SumStart::streamed) hwy::FlushStream();  // before other threads may read
}

/// Past the caches where many sums are written once.
template <class T>
SumStart Wave<T>::sum_start(const MatrixProduct<T>& product) const {
    if (!product.sum_from_zero) return SumStart::added;
    const auto parts = std::ranges::count_if(product.parts, [](i64 part) { return part > 0; });
    return parts == 1 && sum_bytes_ >= kBeyondCaches ? SumStart::streamed : SumStart::zero;
}

/// The addends of a part, piece by piece, so that a piece of the rows is in a cache for all panels.
template <class T>
void Wave<T>::compute_part(const Task<T>& task, Piece part) const {
    const i64 together = task.slice.elements_together(), block = inner_block(sizeof(T)) * together;
    const i64 pieces = std::max<i64>(1, (part.p + block / 2) / block);
    const i64 step = round_up(divide_up(part.p, pieces), task.slice.addend_step());
    for (i64 done = 0; done < part.p; done += step)
        compute_piece(task,
                      {part.first + done, std::min(step, part.p - done), part.panel_row + done / together,
                       done == 0, done + step >= part.p, part.sum_start});
}

template <class T>
void Wave<T>::compute_piece(const Task<T>& task, const Piece& piece) const {
    const BlockWork<T>* const work = task.slice.product->work;
    PanelProduct<T> block;
    block.rows = task.rows;
    block.p = piece.p;
    block.accumulate = task.slice.product->accumulate || !piece.starts;
    operands_.select_rows(task, piece, block);
    const bool begins = work && task.slice.product->accumulate && !task.slice.product->c && piece.starts;
    for (i64 step = 0; step < task.steps(); ++step) {
        if (begins && task.starts_group(step)) work->begin(block_of(task, task.group(step)));
        compute_panel(task, piece, step, block);
        block.fetches_rows = false;
        if (work && piece.ends && task.ends_group(step)) work->run(block_of(task, task.group(step)));
    }
}

template <class T>
void Wave<T>::compute_panel(const Task<T>& task, const Piece& piece, i64 step, PanelProduct<T> block) const {
    const Slice<T>& slice = task.slice;
    const MatrixProduct<T>& product = *slice.product;
    const PanelPlace place = task.place(step);
    const i64 first_column = place.index * kernels_.panel_columns;
    const i64 column = place.half * slice.half_columns() + slice.first_column + first_column;
    block.columns = std::min(kernels_.panel_columns, slice.columns - first_column);
    operands_.select_panel(task, piece, step, block);
    if (product.c) {
        block.c = product.c + task.first_row * product.c_row_stride + column;
        block.c_row_stride = product.c_row_stride;
    } else {
        block.c = results_of(task, place);
        block.c_row_stride = results_row_stride(task);
    }
    if (product.rounded_c && piece.ends) {
        block.rounded = product.rounded_c + task.first_row * product.c_row_stride + column;
        block.rounded_row_stride = product.c_row_stride;
    }
    if (product.sum && piece.ends) {
        block.sum = product.sum.from(task.first_row * product.n + column);
        block.sum_row_stride = product.n;
        block.sum_start = piece.sum_start;
    }
    multiply_panel_by(kernels_, slice.bf16)(block);
}

/// The columns of these panels, of all halves, for the product's work.
template <class T>
ResultBlock<T> Wave<T>::block_of(const Task<T>& task, PanelRange panels) const {
    const Slice<T>& slice = task.slice;
    const MatrixProduct<T>& product = *slice.product;
    const i64 column = panels.first * kernels_.panel_columns;
    ResultBlock<T> block;
    block.product = product.number;
    block.first_row = product.rows_before + task.first_row;
    block.rows = task.rows;
    block.first_column = slice.first_column + column;
    block.columns = std::min(panels.last * kernels_.panel_columns, slice.columns) - column;
    if (product.c) {
        block.c = product.c + task.first_row * product.c_row_stride + block.first_column;
        block.c_row_stride = product.c_row_stride;
        block.c_half = slice.half_columns();
    } else {
        block.c = results_of(task, {0, panels.first});
        block.c_row_stride = results_row_stride(task);
        block.c_half = results_half(task);
    }
    return block;
}

/// A result without addends, row by row.
template <class T>
void clear(const MatrixProduct<T>& product) {
    const i64 half = product.n / product.halves;
    if (product.rounded_c) {
        for (i64 i = 0; i < product.m; ++i)
            std::fill_n(product.rounded_c + i * product.c_row_stride, product.n, BFloat16{});
        return;
    }
    T* const room = product.c ? nullptr : scratch<T>(ScratchSlot::partial_sums, product.n);
    for (i64 i = 0; i < product.m; ++i) {
        T* const row = product.c ? product.c + i * product.c_row_stride : room;
        std::fill_n(row, product.n, T(0));
        if (product.work)
            product.work->run(
                {product.number, product.rows_before + i, 1, 0, half, row, product.c_row_stride, half});
    }
}

/// Sums from zero that no product will write; all of them, where a library only adds.
template <class T>
void clear_empty_sums(ThreadPool& pool, std::span<const MatrixProduct<T>> products, bool all) {
    for (const MatrixProduct<T>& product : products) {
        if (!product.sum || !product.sum_from_zero || (product.p > 0 && !all)) continue;
        pool.parallel_for(product.m, [&](i64 row) { product.sum.from(row * product.n).clear(product.n); });
    }
}

}  // namespace

template <class T>
void BlockWork<T>::begin(const ResultBlock<T>& block) const {
    MOESAIC_ASSERT(false, "{} rows of product {} have nothing to start from", block.rows, block.product);
}
template class BlockWork<float>;
template class BlockWork<double>;

template <class T>
void multiply_all(ThreadPool& pool, std::span<const MatrixProduct<T>> products, const OneDnn* library) {
    clear_empty_sums(pool, products, library != nullptr);
    if constexpr (std::is_same_v<T, float>) {
        if (library && std::ranges::all_of(products, is_for_library))
            return multiply_all_by(*library, pool, products);
    }
    const GemmKernels<T>& kernels = gemm_kernels<T>();
    const int threads_alone = products.size() == 1 ? pool.threads() : 1;  // several make tasks enough
    i64 most_slices = 0, sum_bytes = 0;
    for (const MatrixProduct<T>& product : products) {
        if (product.sum) sum_bytes += product.m * product.n * product.sum.element_bytes();
        if (product.p > 0) most_slices += SliceColumns(kernels, product, threads_alone).most_slices();
    }
    Slice<T>* const slices = scratch<Slice<T>>(ScratchSlot::slices, most_slices);
    std::size_t count = 0;
    i64 bytes = 0;
    auto flush = [&] {
        if (count > 0) Wave<T>(pool, kernels, {slices, count}, sum_bytes).run();
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
        const SliceColumns cut(kernels, product, threads_alone);
        for (i64 first = 0, columns = 0; first < cut.columns(); first += columns) {
            Slice<T> slice{};
            slice.product = &product;
            slice.first_column = first;
            slice.columns = columns = cut.from(first);
            slice.is_left_over = cut.is_left_over(first);
            slice.panels = divide_up(slice.columns, kernels.panel_columns);
            slice.in_place = reads_in_place(kernels, product);
            slice.bf16 = bf16_products_of(kernels, product);
            slices[count++] = slice;
            bytes += slice.panels_to_pack() * kernels.panel_columns * product.p * static_cast<i64>(sizeof(T));
            if (bytes >= bytes_per_wave) flush();
        }
    }
    flush();
}

template <class T>
void multiply(ThreadPool& pool, const MatrixProduct<T>& product, const OneDnn* library) {
    multiply_all<T>(pool, {&product, 1}, library);
}

template void multiply_all(ThreadPool&, std::span<const MatrixProduct<float>>, const OneDnn*);
template void multiply(ThreadPool&, const MatrixProduct<float>&, const OneDnn*);
template void multiply_all(ThreadPool&, std::span<const MatrixProduct<double>>, const OneDnn*);
template void multiply(ThreadPool&, const MatrixProduct<double>&, const OneDnn*);

}  // namespace moesaic
