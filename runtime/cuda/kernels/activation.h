// Functors of the activations; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"
#include "runtime/cuda/kernels/tiles.h"

namespace moesaic::kernels {

/// The kinds of runtime/activation.h, which kernels cannot include.
enum class Function : std::uint8_t { swiglu, gelu, relu, prelu };

/// The slopes of groups of consecutive rows; null where a kind has none.
template <class Stored>
struct Slopes {
    const Stored* slope;
    const i64* first_row;  ///< [groups + 1]
    i64 groups;
};

template <Function kind, class Stored, bool are_whole>
struct ActivationTile {
    static constexpr int kRows = 2;
    static constexpr bool kPanelsFirst = false;
    const Stored* x;
    Stored* y;
    i64 width;
    Slopes<Stored> slopes;
    __device__ void operator()(const Tile& tile) const;
};
template <Function kind, class Stored, bool are_whole>
struct ActivationGradTile {
    static constexpr int kRows = 1;
    static constexpr bool kPanelsFirst = false;
    const Stored *x, *dy;
    Stored* dx;
    i64 width;
    Slopes<Stored> slopes;
    __device__ void operator()(const Tile& tile) const;
};
/// d_slope of a group, its rows in ascending order.
template <class Stored>
struct SlopeGradRow {
    const Stored *x, *dy;
    const i64* first_row;
    i64 width;
    double* d_slope;
    __device__ void operator()(i64 group, const Warp& warp) const;
};

}  // namespace moesaic::kernels
