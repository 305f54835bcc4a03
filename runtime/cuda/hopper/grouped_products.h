// Products of groups of bf16 rows on the tensor cores of compute capability 9.0: what the back end asks of
// them, and what a kernel takes. grouped_products.cu is what there is where nvcc builds for such a device,
// and no_grouped_products.cpp elsewhere.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/cuda/hopper/tile_schedule.h"

namespace moesaic::hopper {

enum class Product {
    forward,         ///< c[rows] bf16 [.,N] (+)= a[rows] [.,P] b[g]ᵀ, b [G,N,P]
    input_gradient,  ///< c[rows] bf16 [.,N] (+)= a[rows] [.,P] b[g], b [G,P,N]
    weight_gradient  ///< c[g] f64 [M,N] (+)= a[rows]ᵀ [M,.] b[rows] [.,N], part by part
};

/// An operand: matrices of bf16, one after the other. All operands and results begin at multiples of 16
/// bytes, and their columns are multiples of 8.
struct Matrices {
    const void* data;
    std::int64_t count, rows, columns;
};

/// What a kernel takes besides the two operands.
struct GroupedArguments {
    const GroupRows* ranges = nullptr;   ///< rows of groups, or of parts for weights; on the device
    const GroupParts* groups = nullptr;  ///< for weights alone; on the device
    int range_count = 0, tiles = 0;
    int height = 0, width = 0;  ///< of a result: M for weights alone, N
    int terms = 0;              ///< P; of weights those of each part are its rows
    bool accumulate = false;
    void* c = nullptr;
};

/// Of the current device; 0 where it or the program has no such kernels, and nothing may be started.
[[nodiscard]] int multiprocessors_for_grouped_products();
[[nodiscard]] cudaError_t start_grouped_product(cudaStream_t stream, int multiprocessors, Product product,
                                                const Matrices& a, const Matrices& b,
                                                const GroupedArguments& arguments);

}  // namespace moesaic::hopper
