// How kernels over rows and long arrays are started: four consecutive elements a turn and thread, so that
// loads are of 16 bytes (8 of bf16) where operands begin and rows are long as that wants. As launch.h, for
// what memory bounds.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "runtime/cuda/kernels/elements.h"

namespace moesaic::kernels {

inline constexpr i64 kQuad = 4;

/// Whether every row of `columns` elements of each operand is whole quads at addresses of whole quads, as
/// functors of
/// <.., true> ask for; null operands are left out.
template <class... Elements>
[[nodiscard]] bool are_whole_quads(i64 columns, const Elements*... operands) {
    const auto is_aligned = [](const void* data, std::size_t element) {
        constexpr std::size_t kMostBytes = 16;
        const std::size_t bytes = element * kQuad < kMostBytes ? element * kQuad : kMostBytes;
        return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
    };
    return columns % kQuad == 0 && (is_aligned(operands, sizeof(Elements)) && ...);
}
/// Calls `launch` with what <.., is_whole> of functors is. f64, of which there are oracles alone, takes the
/// general way.
template <class Stored, class Launch>
void with_quads(bool are_whole, Launch&& launch) {
    if constexpr (std::is_same_v<Stored, double>) {
        launch(std::false_type{});
    } else {
        are_whole ? launch(std::true_type{}) : launch(std::false_type{});
    }
}

/// Calls f(first, room) for first = 0, 4, 8, ... below `count`; `room` elements are left from there on.
template <class Functor>
void each_quad(cudaStream_t stream, i64 count, const Functor& f);

/// Rows row, row + step, ... below `rows`, at most Functor::kRows of them, at one column.
struct Tile {
    i64 row, step, rows;
    i32 column;
};
/// Calls f(tile) so that every row meets every column of [0, columns) once. Neighbouring threads have
/// neighbouring columns. With Functor::kPanelsFirst all rows of a panel of columns come before the next
/// panel, so that what they read more than once is in the cache; else rows come one after the other.
template <class Functor>
void each_tile(cudaStream_t stream, i64 rows, i64 columns, const Functor& f);

struct Team;
inline constexpr int kTeamThreads = 256;
/// Calls f(number, team) for every number in [0, count) by the kTeamThreads threads of a block.
template <class Functor>
void each_team(cudaStream_t stream, i64 count, const Functor& f);

/// Calls f(row, threads) for every row, where `threads` is a Team if rows are wide, else a Warp. A row's
/// result depends on `width` alone.
template <class Functor>
void each_row_of(cudaStream_t stream, i64 rows, i64 width, const Functor& f);

}  // namespace moesaic::kernels
