// Where a task of a product finds its rows and panels: as they stand, or copied for the register tiles.
#pragma once

#include <atomic>
#include <utility>

#include "runtime/cpu/gemm_tasks.h"
#include "runtime/cpu/scratch.h"

namespace moesaic::gemm {

/// How a product's operands are multiplied where both can be read as pairs of bf16.
template <class T>
[[nodiscard]] Bf16Products bf16_products_of(const GemmKernels<T>& kernels, const MatrixProduct<T>& product) {
    const bool has_pairs = product.a.is_narrow() &&
                           (product.packed_b ? product.packed_b.narrow != nullptr : product.b.is_narrow());
    if (!has_pairs) return Bf16Products::widened;
    const Bf16Products used = bf16_products();
    if (used == Bf16Products::tiles) return used;
    return used != Bf16Products::widened && kernels.narrow.multiply_pairs ? Bf16Products::pairs
                                                                          : Bf16Products::widened;
}

template <class T>
[[nodiscard]] auto multiply_panel_by(const GemmKernels<T>& kernels, Bf16Products products) {
    if (products == Bf16Products::tiles) return kernels.narrow.multiply_tiles;
    return products == Bf16Products::pairs ? kernels.narrow.multiply_pairs : kernels.multiply_panel;
}

/// Sets what a panel's product reads; copies go to this thread's scratch memory.
template <class T>
class TaskOperands {
  public:
    explicit TaskOperands(const GemmKernels<T>& kernels) : kernels_(kernels), number_(next_number_++) {}

    void select_rows(const Task<T>& task, const Piece& piece, PanelProduct<T>& block) const;
    void select_panel(const Task<T>& task, const Piece& piece, i64 step, PanelProduct<T>& block) const;
    /// Of a copy made beforehand, or of the wave's own; of pairs where the slice multiplies those.
    [[nodiscard]] const T* packed_panel(const Slice<T>& slice, PanelPlace place) const;

  private:
    void select_pairs(const Task<T>& task, const Piece& piece, PanelProduct<T>& block) const;
    /// Whether this thread's scratch memory holds the piece's rows from its last task, one of other panels.
    /// From now on it does.
    [[nodiscard]] bool has_copied(const Task<T>& task, const Piece& piece) const {
        struct Rows {
            u64 number;
            const Slice<T>* slice;
            i64 first_row, first;
            bool operator==(const Rows&) const = default;
        };
        thread_local Rows last{};
        const Rows these{number_, &task.slice, task.first_row, piece.first};
        return std::exchange(last, these) == these;
    }
    /// Of a copy in bf16.
    [[nodiscard]] const BFloat16* narrow_panel(const Slice<T>& slice, PanelPlace place) const {
        return slice.product->packed_b.narrow +
               place.half * packed_elements<BFloat16>(slice.product->p, slice.half_columns()) +
               (slice.first_column + place.index * kernels_.panel_columns) * round_up(slice.product->p, 2);
    }
    [[nodiscard]] i64 panel_stride(const Slice<T>& slice, i64 index) const {
        return round_up(std::min(kernels_.panel_columns, slice.columns - index * kernels_.panel_columns),
                        kernels_.lanes);
    }

    inline static std::atomic<u64> next_number_{1};
    const GemmKernels<T>& kernels_;
    u64 number_;  // no other call's
};

/// Sets `block` to the piece's part of the task's rows: where they stand, or copied for the register tiles.
template <class T>
void TaskOperands<T>::select_rows(const Task<T>& task, const Piece& piece, PanelProduct<T>& block) const {
    const ProductOperand<T>& a = task.slice.product->a;
    const auto room = [&](i64 row_elements) {
        return scratch<T>(ScratchSlot::packed_rows, round_up(task.rows, kernels_.row_tile) * row_elements);
    };
    const auto in_tiles = [&](T* tiles) {
        block.a = {tiles, 1, kernels_.row_tile};
        block.a_tile_stride = kernels_.row_tile * piece.p;
    };
    if (task.slice.pairs()) return select_pairs(task, piece, block);
    if (a.is_narrow()) {
        const StridedOperand<BFloat16> rows = a.narrow.from(task.first_row, piece.first);
        if (!has_columns_apart(rows)) {
            const i64 stride = round_up(piece.p, kernels_.lanes) + kernels_.lanes;  // not all on a few sets
            T* const copies = room(stride);
            if (!has_copied(task, piece)) kernels_.narrow.copy_rows(rows, task.rows, piece.p, copies, stride);
            block.a = {copies, stride, 1};
        } else {
            T* const tiles = room(piece.p);
            if (!has_copied(task, piece)) kernels_.narrow.pack_rows(rows, task.rows, piece.p, tiles);
            in_tiles(tiles);
        }
        return;
    }
    block.a = a.real.from(task.first_row, piece.first);
    block.fetches_rows = true;
    if (block.a.column_index || (block.a.column_stride != 1 && task.slice.panels > 1)) {
        // Where the rows of a transposed a stand its columns are far apart, each on the same cache sets.
        T* const tiles = room(piece.p);
        if (!has_copied(task, piece)) kernels_.pack_rows(block.a, task.rows, piece.p, tiles);
        in_tiles(tiles);
        block.fetches_rows = false;
    }
}

/// Whether pairs of `p` addends are whole words at equal distances, so that tiles read them where they stand.
inline bool stands_in_pairs(const StridedOperand<BFloat16>& rows, i64 p) {
    return !has_columns_apart(rows) && !rows.row_index && rows.row_stride % 2 == 0 && p % 2 == 0 &&
           reinterpret_cast<std::uintptr_t>(rows.data) % sizeof(float) == 0;
}

/// As select_rows, of pairs.
template <class T>
void TaskOperands<T>::select_pairs(const Task<T>& task, const Piece& piece, PanelProduct<T>& block) const {
    const StridedOperand<BFloat16> rows = task.slice.product->a.narrow.from(task.first_row, piece.first);
    const bool by_tiles = task.slice.bf16 == Bf16Products::tiles;
    block.p = divide_up(piece.p, 2);
    if (by_tiles && stands_in_pairs(rows, piece.p)) {
        block.a = {reinterpret_cast<const T*>(rows.data), rows.row_stride / 2, 1};
        return;
    }
    const i64 stride = round_up(block.p, kernels_.lanes) + kernels_.lanes;  // not all on a few sets
    T* const copies = scratch<T>(ScratchSlot::packed_rows, round_up(task.rows, kernels_.row_tile) * stride);
    const bool ready = has_copied(task, piece);
    if (!has_columns_apart(rows)) {
        if (!ready)
            kernels_.narrow.copy_pair_rows(rows, task.rows, piece.p, pair_order(task.slice.bf16), copies,
                                           stride);
        block.a = {copies, stride, 1};
    } else if (by_tiles) {
        if (!ready) kernels_.narrow.transpose_pair_rows(rows, task.rows, piece.p, copies, stride);
        block.a = {copies, stride, 1};
    } else {
        if (!ready) kernels_.narrow.pack_pair_rows(rows, task.rows, piece.p, copies);
        block.a = {copies, 1, kernels_.row_tile};
        block.a_tile_stride = kernels_.row_tile * block.p;
    }
}

/// Sets `block` to the piece's part of the step's panel, and to the next one.
template <class T>
void TaskOperands<T>::select_panel(const Task<T>& task, const Piece& piece, i64 step,
                                   PanelProduct<T>& block) const {
    const Slice<T>& slice = task.slice;
    const PanelPlace place = task.place(step);
    if (slice.in_place && block.columns == kernels_.panel_columns) {
        const i64 column =
            place.half * slice.half_columns() + slice.first_column + place.index * kernels_.panel_columns;
        block.panel = slice.product->b.real.from(piece.first, column).data;
        block.panel_stride = slice.product->b.real.row_stride;
        return;
    }
    const bool narrow = slice.product->packed_b.narrow && !slice.pairs();
    block.panel_stride = panel_stride(slice, place.index);
    if (narrow) {  // a piece begins with a pair: all but a product's last one have an even p
        T* const panel =
            scratch<T>(ScratchSlot::unpacked_panel, round_up(piece.p, 2) * kernels_.panel_columns);
        kernels_.narrow.unpack_pairs(narrow_panel(slice, place) + piece.first * block.panel_stride, piece.p,
                                     block.panel_stride, pair_order(bf16_products()), panel);
        block.panel = panel;
    } else {
        block.panel = packed_panel(slice, place) + piece.panel_row * block.panel_stride;
    }
    if (step + 1 == task.steps() || slice.in_place) return;
    const PanelPlace next = task.place(step + 1);
    const i64 stride = panel_stride(slice, next.index);
    if (narrow) {
        block.next = reinterpret_cast<const T*>(narrow_panel(slice, next) + piece.first * stride);
        block.next_elements = piece.p * stride / 2;
    } else {
        block.next = packed_panel(slice, next) + piece.panel_row * stride;
        block.next_elements = block.p * stride;
    }
}

template <class T>
const T* TaskOperands<T>::packed_panel(const Slice<T>& slice, PanelPlace place) const {
    const i64 p = slice.product->p, first_column = place.index * kernels_.panel_columns;
    if (slice.product->packed_b.narrow) return reinterpret_cast<const T*>(narrow_panel(slice, place));
    if (slice.product->packed_b) {
        return slice.packed + place.half * packed_elements<T>(p, slice.half_columns()) +
               (slice.first_column + first_column) * p;
    }
    return slice.packed + (place.half * slice.panels * kernels_.panel_columns + first_column) * p;
}

}  // namespace moesaic::gemm
