// Products of groups of rows: the experts'. Large ones fill a GPU alone, and cuBLAS's call for one product is
// then the fastest; small ones go together in one call.
//
// Measured on an H100 (bf16, c [rows, 4096] over 7168): 4 uneven groups of 32768 rows in all 825 TFLOP/s one
// by one, 326 together; 64 of 512 rows 723 and 266; 256 of 128 rows 289 and 184. 8 of 256 rows, 512 columns
// over 128: 61 us one by one, a call's 8 us each, and 15 us together.
#include <algorithm>
#include <numeric>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cublas_arguments.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

namespace {

i64 sum_of(std::span<const i64> numbers) {
    return std::accumulate(numbers.begin(), numbers.end(), i64{0});
}

/// A product of so many FLOPs takes as long as the call for it, several together not much longer: above,
/// alone.
bool is_large(const ProductExtents& extents, DType dtype) {
    constexpr double kLargeBf16 = 2e9, kLarge = 3e8;
    return 2.0 * static_cast<double>(extents.m) * static_cast<double>(extents.n) *
               static_cast<double>(extents.p) >=
           (dtype == DType::bf16 ? kLargeBf16 : kLarge);
}

/// Together cuBLAS does not share out long sums, so that the tiles of the results have to fill a device: 8 of
/// 2048 rows, 512 x 128 in f32, took 284 us, one by one 8 us each; 256 of 2048 terms, 128 x 2048 in
/// bf16, 1.05 ms, one by one 2.08.
bool fill_a_device(i64 tiles, i64 terms) {
    constexpr i64 kLongSum = 512, kMultiprocessors = 132;
    return terms < kLongSum || tiles >= kMultiprocessors;
}
i64 tiles_of(i64 m, i64 n) {
    constexpr i64 kTile = 128;
    return quotient_up(m, kTile) * quotient_up(n, kTile);
}

/// cuBLAS cannot look at pointers that the device reads, and may read what they point to in vectors.
bool is_aligned(const void* data) {
    constexpr std::uintptr_t kVector = 16;
    return reinterpret_cast<std::uintptr_t>(data) % kVector == 0;
}

bool goes_alone(const Gemm& op) {
    const ProductExtents extents = extents_of(op);
    return extents.m * extents.n * extents.p == 0 || is_large(extents, op.a.dtype) ||
           op.a.dtype != op.c.dtype || !is_aligned(op.a.data) || !is_aligned(op.b.data) ||
           !is_aligned(op.c.data);
}

/// What the call for several takes, an element for each of them; those that all have are the first's.
struct TogetherArguments {
    std::vector<int> m, n, p, a_stride, b_stride, ones;
    std::vector<cublasOperation_t> trans_a, trans_b;
    std::vector<double> wide_one, wide_factor;
    std::vector<float> one, factor;
    std::vector<const void*> pointers;  ///< b's, then a's, then c's

    explicit TogetherArguments(std::span<const Gemm> products)
        : ones(products.size(), 1),
          trans_a(products.size(), transposed(products[0].trans_a)),
          trans_b(products.size(), transposed(products[0].trans_b)),
          wide_one(products.size(), 1),
          wide_factor(products.size(), products[0].accumulate ? 1 : 0),
          one(products.size(), 1),
          factor(products.size(), products[0].accumulate ? 1.0f : 0.0f) {
        for (const Gemm& op : products) {
            const ProductExtents extents = extents_of(op);
            m.push_back(narrow(extents.m));
            n.push_back(narrow(extents.n));
            p.push_back(narrow(extents.p));
            a_stride.push_back(narrow(op.a.cols()));
            b_stride.push_back(narrow(op.b.cols()));
            pointers.push_back(op.b.data);
        }
        for (const Gemm& op : products) pointers.push_back(op.a.data);
        for (const Gemm& op : products) pointers.push_back(op.c.data);
    }
};

}  // namespace

/// Their sizes are the host's; where their operands stand the device reads.
void CudaBackend::multiply_together(Stream& stream, std::span<const Gemm> products) {
    const TogetherArguments of(products);
    const std::size_t count = products.size();
    Tensor room;
    upload(stream, of.pointers.data(), static_cast<i64>(of.pointers.size() * sizeof(void*)), room);
    const auto** const on_device = reinterpret_cast<const void**>(room.as<i64>());
    const DType dtype = products[0].c.dtype;
    const cudaDataType type = type_of(dtype);
    const bool wide = dtype == DType::f64;
    const auto factors = [wide](const std::vector<double>& doubles, const std::vector<float>& floats) {
        return wide ? static_cast<const void*>(doubles.data()) : floats.data();
    };
    check(cublasGemmGroupedBatchedEx(mine(stream).products(), of.trans_b.data(), of.trans_a.data(),
                                     of.n.data(), of.m.data(), of.p.data(), factors(of.wide_one, of.one),
                                     on_device, type, of.b_stride.data(), on_device + count, type,
                                     of.a_stride.data(), factors(of.wide_factor, of.factor),
                                     const_cast<void* const*>(on_device + 2 * count), type, of.n.data(),
                                     static_cast<int>(count), of.ones.data(), compute_type(dtype)),
          "GemmGroupedBatchedEx");
}

void CudaBackend::multiply_all(Stream& stream, std::span<const Gemm> products) {
    std::vector<Gemm> small;
    for (const Gemm& op : products) {
        if (goes_alone(op))
            multiply(stream, op);
        else
            small.push_back(op);
    }
    i64 tiles = 0, terms = 0;
    for (const Gemm& op : small) {
        const ProductExtents extents = extents_of(op);
        tiles += tiles_of(extents.m, extents.n);
        terms = std::max(terms, extents.p);
    }
    if (small.size() > 1 && fill_a_device(tiles, terms)) return multiply_together(stream, small);
    for (const Gemm& op : small) multiply(stream, op);
}

void CudaBackend::multiply_groups(Stream& stream, const GroupedGemm& op) {
    const i64 n = op.c.cols(), p = op.a.cols();
    const Shape matrix = op.trans_b ? Shape{n, p} : Shape{p, n};
    std::vector<Gemm> products;
    i64 first = 0, group = 0;
    for (const i64 here : op.rows_per_group) {
        if (here > 0)
            products.push_back({.a = op.a.slice_rows(first, here),
                                .b = op.b.slice_rows(group, 1).reshaped(matrix),
                                .c = op.c.slice_rows(first, here),
                                .trans_b = op.trans_b,
                                .accumulate = op.accumulate});
        first += here;
        ++group;
    }
    multiply_all(stream, products);
}

void CudaBackend::grouped_gemm(Stream& stream, const GroupedGemm& operation) {
    GroupedGemm op = operation;
    op.packed_b = {};
    checked(stream, &Backend::grouped_gemm, op);
    Tensor rows, a_room, b_room, c_room;
    op.a = gathered(stream, op.a, op.a_rows, rows);
    op.a_rows = {};
    if (multiply_groups_on_hopper(stream, op)) return;
    if (op.a.dtype == op.b.dtype && op.b.dtype == op.c.dtype) return multiply_groups(stream, op);
    op.a = widened(stream, op.a, a_room);
    op.b = widened(stream, op.b, b_room);
    if (op.c.dtype != DType::bf16) return multiply_groups(stream, op);
    const TensorView c = operation.c.slice_rows(0, sum_of(op.rows_per_group));  // others stay
    c_room = allocate(c.shape, DType::f32);
    if (op.accumulate) convert(stream, c, c_room);
    op.c = c_room;
    multiply_groups(stream, op);
    convert(stream, c_room, c);
}

namespace {

/// Consecutive rows of one expert.
struct Part {
    i64 group, first, rows;
};

/// Parts that have rows.
std::vector<Part> parts_of(const GroupedGemmWeightGrad& op) {
    const i64 parts = std::ssize(op.rows_per_part) / op.c.rows();
    std::vector<Part> all;
    i64 first = 0, place = 0;
    for (const i64 rows : op.rows_per_part) {
        if (rows > 0) all.push_back({place / parts, first, rows});
        first += rows;
        ++place;
    }
    return all;
}

}  // namespace

/// Part by part, so that what the sums hold never depends on how the parts are shared out: as many at a time
/// as have room.
void CudaBackend::grouped_gemm_weight_grad(Stream& stream, const GroupedGemmWeightGrad& op) {
    checked(stream, &Backend::grouped_gemm_weight_grad, op);
    const i64 height = op.a.cols(), width = op.b.cols();
    if (op.c.rows() * height * width == 0) return;
    const std::vector<Part> parts = parts_of(op);
    Tensor a_rows, b_rows, a_room, b_room;
    ConstTensorView a = gathered(stream, op.a, op.a_rows, a_rows),
                    b = gathered(stream, op.b, op.b_rows, b_rows);
    if (add_weight_gradients_on_hopper(stream, a, b, op)) return;
    if (op.from_zero) zero(stream, op.c);
    if (parts.empty()) return;
    // cuBLAS takes bf16 with a sum in f32 for one product, and not for several together.
    const i64 mean = std::max<i64>(1, a.rows() / std::ssize(parts));
    const bool together = parts.size() > 1 && !is_large({height, width, mean}, DType::f32) &&
                          fill_a_device(tiles_of(height, width) * std::ssize(parts), mean);
    if (a.dtype != b.dtype || together) {
        a = widened(stream, a, a_room);
        b = widened(stream, b, b_room);
    }
    constexpr i64 kRoom = i64{8} << 20;  // bytes
    const DType sum = accumulation_type(a.dtype);
    const i64 slots = std::clamp<i64>(kRoom / (height * width * size_of(sum)), 1, std::ssize(parts));
    Tensor products = allocate({slots, height * width}, sum);
    for (i64 begin = 0; begin < std::ssize(parts); begin += slots) {
        const i64 count = std::min(std::ssize(parts) - begin, slots);
        const auto part = [&](i64 i) { return parts[static_cast<std::size_t>(begin + i)]; };
        std::vector<Gemm> all;
        for (i64 i = 0; i < count; ++i)
            all.push_back({.a = a.slice_rows(part(i).first, part(i).rows),
                           .b = b.slice_rows(part(i).first, part(i).rows),
                           .c = products.slice_rows(i, 1).reshaped({height, width}),
                           .trans_a = true});
        multiply_all(stream, all);
        for (i64 i = 0, end = 0; i < count; i = end) {  // neighbours at once
            end = i + 1;
            while (end < count && part(end).group == part(end - 1).group + 1) ++end;
            fold(stream, products.slice_rows(i, end - i),
                 op.c.slice_rows(part(i).group, end - i).reshaped({end - i, height * width}), {});
        }
    }
}

void CudaBackend::grouped_gemm_activation(Stream& stream, const GroupedGemm& product,
                                          const Activation& after) {
    const i64 rows = sum_of(product.rows_per_group);
    grouped_gemm(stream, product);
    Activation op = after;
    op.x = product.c.slice_rows(0, rows);
    op.y = after.y.slice_rows(0, rows);
    if (after.kind == ActivationKind::prelu) op.rows_per_group = product.rows_per_group;
    activation(stream, op);
}

void CudaBackend::grouped_gemm_activation_backward(Stream& stream, const GroupedGemm& product,
                                                   const ActivationGrad& after) {
    const i64 rows = sum_of(product.rows_per_group), width = after.dx.cols() / activation_halves(after.kind);
    Tensor dy =
        allocate({product.a_rows.data ? product.a_rows.rows() : product.a.rows(), width}, after.dx.dtype);
    GroupedGemm whole = product;
    whole.c = dy;
    grouped_gemm(stream, whole);
    ActivationGrad op = after;
    op.x = after.x.slice_rows(0, rows);
    op.dy = dy.slice_rows(0, rows);
    op.dx = after.dx.slice_rows(0, rows);
    if (after.kind == ActivationKind::prelu) op.rows_per_group = product.rows_per_group;
    activation_backward(stream, op);
}

}  // namespace moesaic
