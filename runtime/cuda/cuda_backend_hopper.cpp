// Products of groups of rows by kernels for compute capability 9.0 (hopper/): bf16, all groups in one launch,
// and gradients of weights added to their f64 sums on the way. Which groups go there is told by their sizes
// alone, so that it is the same in every call.
//
// Measured on an H100, TFLOP/s, here and by cuBLAS one by one: 64 experts of about 1024 rows, [rows,2048]
// over 2048 (9 GFLOP each) 590 and 530, over 1024 576 and 346; 64 of 256 rows, [rows,2048] over 7168 (8
// GFLOP) 524 and 380; 8 of about 1024, [rows,28672] over 4096 (240 GFLOP) 569 and 748. Gradients of weights,
// written and added to f64: 411 and 270, by cuBLAS and fold 142 and 172.
#include <algorithm>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cublas_arguments.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/hopper/grouped_products.h"
#include "runtime/cuda/hopper/tile_tables.h"

namespace moesaic {

using namespace cuda;

namespace {

/// Above, a group's product by cuBLAS is the faster one: of 30 GFLOP, 512 rows, it reached 723.
constexpr double kMostFlops = 2e10;

/// What is copied and stored goes by 16 bytes.
bool has_whole_pieces(const void* data, i64 columns, DType dtype) {
    constexpr i64 kPiece = 16;
    return reinterpret_cast<std::uintptr_t>(data) % kPiece == 0 && columns * size_of(dtype) % kPiece == 0;
}
bool takes(ConstTensorView operand, i64 columns) {
    return operand.dtype == DType::bf16 && operand.elements() > 0 &&
           has_whole_pieces(operand.data, columns, operand.dtype);
}

/// A multiprocessor adds up a tile of so many terms while the host calls cuBLAS for one group: where tiles
/// are few and sums are long, cuBLAS, which shares out sums, is faster.
bool outpaces_calls(int multiprocessors, int tiles, i64 terms, i64 groups) {
    constexpr i64 kTermsOfCall = 1024;
    return tiles >= multiprocessors || terms <= kTermsOfCall * groups;
}

}  // namespace

bool CudaBackend::multiply_groups_on_hopper(Stream& stream, const GroupedGemm& op) {
    const i64 n = op.c.cols(), p = op.a.cols();
    if (hopper_multiprocessors_ == 0 || op.c.dtype != DType::bf16 || !takes(op.a, p) ||
        !takes(op.b, op.trans_b ? p : n) || !has_whole_pieces(op.c.data, n, op.c.dtype))
        return false;
    const hopper::TileTables tables = hopper::tables_of_rows(op.rows_per_group, narrow(n));
    const auto groups = std::ssize(tables.ranges);
    double flops = 0;
    for (const hopper::GroupRows& range : tables.ranges)
        flops += 2.0 * range.rows * static_cast<double>(n) * static_cast<double>(p);
    if (groups < 2 || flops > kMostFlops * static_cast<double>(groups) ||
        !outpaces_calls(hopper_multiprocessors_, tables.tiles, p, groups))
        return false;
    Tensor ranges;
    upload(stream, tables.ranges.data(), groups * static_cast<i64>(sizeof(hopper::GroupRows)), ranges);
    check(hopper::start_grouped_product(
              mine(stream).handle(), hopper_multiprocessors_,
              op.trans_b ? hopper::Product::forward : hopper::Product::input_gradient,
              {.data = op.a.data, .count = 1, .rows = narrow(op.a.rows()), .columns = p},
              {.data = op.b.data,
               .count = op.b.rows(),
               .rows = op.trans_b ? n : p,
               .columns = op.trans_b ? p : n},
              {.ranges = reinterpret_cast<const hopper::GroupRows*>(ranges.as<i64>()),
               .range_count = narrow(groups),
               .tiles = tables.tiles,
               .width = narrow(n),
               .terms = narrow(p),
               .accumulate = op.accumulate,
               .c = op.c.data}),
          "starting a grouped product");
    return true;
}

bool CudaBackend::add_weight_gradients_on_hopper(Stream& stream, ConstTensorView a, ConstTensorView b,
                                                 const GroupedGemmWeightGrad& op) {
    const i64 height = a.cols(), width = b.cols();
    if (hopper_multiprocessors_ == 0 || !takes(a, height) || !takes(b, width) ||
        !has_whole_pieces(op.c.data, width, op.c.dtype))
        return false;
    const hopper::TileTables tables = hopper::tables_of_weights(op.rows_per_part, narrow(op.c.rows()),
                                                                narrow(height), narrow(width), op.from_zero);
    const auto groups = std::ssize(tables.groups);
    if (tables.ranges.empty() ||
        !outpaces_calls(hopper_multiprocessors_, tables.tiles, tables.groups.front().rows, groups))
        return false;
    constexpr auto bytes = [](const auto& table) {
        return std::ssize(table) * static_cast<i64>(sizeof table.front());
    };
    Tensor ranges, parts;
    upload(stream, tables.ranges.data(), bytes(tables.ranges), ranges);
    upload(stream, tables.groups.data(), bytes(tables.groups), parts);
    check(hopper::start_grouped_product(
              mine(stream).handle(), hopper_multiprocessors_, hopper::Product::weight_gradient,
              {.data = a.data, .count = 1, .rows = narrow(a.rows()), .columns = height},
              {.data = b.data, .count = 1, .rows = narrow(b.rows()), .columns = width},
              {.ranges = reinterpret_cast<const hopper::GroupRows*>(ranges.as<i64>()),
               .groups = reinterpret_cast<const hopper::GroupParts*>(parts.as<i64>()),
               .range_count = narrow(std::ssize(tables.ranges)),
               .tiles = tables.tiles,
               .height = narrow(height),
               .width = narrow(width),
               .accumulate = !op.from_zero,
               .c = op.c.data}),
          "starting a gradient of weights");
    return true;
}

}  // namespace moesaic
