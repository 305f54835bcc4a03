// Products by cuBLAS. Its matrices have their columns first: c = a b of rows is cᵀ = bᵀ aᵀ there.
#include <algorithm>
#include <numeric>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

namespace {

int narrow(i64 extent) {
    MOESAIC_ASSERT(extent <= INT32_MAX, "an extent of {}", extent);
    return static_cast<int>(extent);
}

cudaDataType type_of(DType dtype) {
    return dtype == DType::f64 ? CUDA_R_64F : dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// 1 or 0 in the type that cuBLAS computes in.
struct Factors {
    double wide[2] = {0, 1};
    float narrow[2] = {0, 1};
    [[nodiscard]] const void* of(bool one, DType dtype) const {
        if (dtype == DType::f64) return wide + (one ? 1 : 0);
        return narrow + (one ? 1 : 0);
    }
};
constexpr Factors kFactors;

cublasComputeType_t compute_type(DType dtype) {
    return dtype == DType::f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
}

cublasOperation_t transposed(bool is) {
    return is ? CUBLAS_OP_T : CUBLAS_OP_N;
}

i64 sum_of(std::span<const i64> numbers) {
    return std::accumulate(numbers.begin(), numbers.end(), i64{0});
}

/// Views whose bf16 cuBLAS takes as they are.
bool goes_together(ConstTensorView a, ConstTensorView b, ConstTensorView c) {
    return a.dtype == b.dtype && (c.dtype == a.dtype || (a.dtype == DType::bf16 && c.dtype == DType::f32));
}

}  // namespace

ConstTensorView CudaBackend::widened(Stream& stream, ConstTensorView operand, Tensor& room) {
    if (operand.dtype != DType::bf16) return operand;
    const MemoryUseScope use(pool_, MemoryUse::widened);
    room = allocate(operand.shape, DType::f32);
    convert(stream, operand, room);
    return room;
}

ConstTensorView CudaBackend::gathered(Stream& stream, ConstTensorView operand, ConstTensorView index,
                                      Tensor& room) {
    if (!index.data) return operand;
    room = allocate({index.rows(), operand.cols()}, operand.dtype);
    gather_rows(stream, {.in = operand, .index = index, .out = room});
    return room;
}

void CudaBackend::multiply(Stream& stream, const Gemm& op) {
    const i64 m = op.c.rows(), n = op.c.cols(), p = op.trans_a ? op.a.rows() : op.a.cols();
    if (m * n == 0) return;
    if (p == 0) {
        if (!op.accumulate) zero(stream, op.c);
        return;
    }
    check(cublasGemmEx(mine(stream).products(), transposed(op.trans_b), transposed(op.trans_a), narrow(n),
                       narrow(m), narrow(p), kFactors.of(true, op.c.dtype), op.b.data, type_of(op.b.dtype),
                       narrow(op.b.cols()), op.a.data, type_of(op.a.dtype), narrow(op.a.cols()),
                       kFactors.of(op.accumulate, op.c.dtype), op.c.data, type_of(op.c.dtype), narrow(n),
                       compute_type(op.c.dtype), CUBLAS_GEMM_DEFAULT),
          "GemmEx");
}

void CudaBackend::gemm(Stream& stream, const Gemm& operation) {
    Gemm op = operation;
    op.packed_b = {};
    checked(stream, &Backend::gemm, op);
    if (goes_together(op.a, op.b, op.c)) return multiply(stream, op);
    Tensor a_room, b_room, c_room;
    op.a = widened(stream, op.a, a_room);
    op.b = widened(stream, op.b, b_room);
    if (op.c.dtype != DType::bf16) return multiply(stream, op);
    c_room = allocate(op.c.shape, DType::f32);
    if (op.accumulate) convert(stream, op.c, c_room);
    op.c = c_room;
    multiply(stream, op);
    convert(stream, c_room, operation.c);
}

namespace {

/// The operands of the groups that have rows: b's, then a's, then c's.
std::vector<const void*> operands_of(const GroupedGemm& op, std::size_t count) {
    std::vector<const void*> pointers(3 * count);
    i64 first = 0;
    std::size_t place = 0;
    for (std::size_t group = 0; group < op.rows_per_group.size(); ++group) {
        const i64 here = op.rows_per_group[group];
        if (here == 0) continue;
        pointers[place] = op.b.slice_rows(static_cast<i64>(group), 1).data;
        pointers[count + place] = op.a.slice_rows(first, here).data;
        pointers[2 * count + place] = op.c.slice_rows(first, here).data;
        ++place;
        first += here;
    }
    return pointers;
}

/// cuBLAS cannot look at pointers that the device reads, and may read what they point to in vectors.
bool are_aligned(const std::vector<const void*>& pointers) {
    constexpr std::uintptr_t kVector = 16;
    return std::ranges::all_of(
        pointers, [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % kVector == 0; });
}

}  // namespace

void CudaBackend::multiply_each_group(Stream& stream, const GroupedGemm& op) {
    const i64 n = op.c.cols(), p = op.a.cols();
    const Shape matrix = op.trans_b ? Shape{n, p} : Shape{p, n};
    i64 first = 0;
    for (std::size_t group = 0; group < op.rows_per_group.size(); ++group) {
        const i64 here = op.rows_per_group[group];
        multiply(stream, {.a = op.a.slice_rows(first, here),
                          .b = op.b.slice_rows(static_cast<i64>(group), 1).reshaped(matrix),
                          .c = op.c.slice_rows(first, here),
                          .trans_b = op.trans_b,
                          .accumulate = op.accumulate});
        first += here;
    }
}

/// One call for all groups. Their sizes are the host's; where their operands stand the device reads.
void CudaBackend::multiply_groups(Stream& stream, const GroupedGemm& op) {
    const i64 n = op.c.cols(), p = op.a.cols();
    std::vector<int> rows;
    for (const i64 here : op.rows_per_group)
        if (here > 0) rows.push_back(narrow(here));
    const std::size_t count = rows.size();
    if (count == 0 || n == 0) return;
    if (p == 0) {
        if (!op.accumulate) zero(stream, op.c.slice_rows(0, sum_of(op.rows_per_group)));
        return;
    }
    const std::vector<const void*> pointers = operands_of(op, count);
    if (!are_aligned(pointers)) return multiply_each_group(stream, op);
    const std::vector<int> columns(count, narrow(n)), inner(count, narrow(p)), ones(count, 1),
        b_stride(count, narrow(op.trans_b ? p : n));
    Tensor room;
    upload(stream, pointers.data(), static_cast<i64>(pointers.size() * sizeof(void*)), room);
    const auto** const on_device = reinterpret_cast<const void**>(room.as<i64>());
    const std::vector<cublasOperation_t> trans_b(count, transposed(op.trans_b)), plain(count, CUBLAS_OP_N);
    const std::vector<double> wide_one(count, 1), wide_beta(count, op.accumulate ? 1 : 0);
    const std::vector<float> one(count, 1), beta(count, op.accumulate ? 1.0f : 0.0f);
    const bool wide = op.c.dtype == DType::f64;
    const cudaDataType type = type_of(op.c.dtype);
    check(cublasGemmGroupedBatchedEx(mine(stream).products(), trans_b.data(), plain.data(), columns.data(),
                                     rows.data(), inner.data(),
                                     wide ? static_cast<const void*>(wide_one.data()) : one.data(), on_device,
                                     type, b_stride.data(), on_device + count, type, inner.data(),
                                     wide ? static_cast<const void*>(wide_beta.data()) : beta.data(),
                                     const_cast<void* const*>(on_device + 2 * count), type, columns.data(),
                                     static_cast<int>(count), ones.data(), compute_type(op.c.dtype)),
          "GemmGroupedBatchedEx");
}

void CudaBackend::grouped_gemm(Stream& stream, const GroupedGemm& operation) {
    GroupedGemm op = operation;
    op.packed_b = {};
    checked(stream, &Backend::grouped_gemm, op);
    Tensor rows, a_room, b_room, c_room;
    op.a = gathered(stream, op.a, op.a_rows, rows);
    op.a_rows = {};
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

/// Part by part, so that what the sums hold never depends on how the parts are shared out.
void CudaBackend::grouped_gemm_weight_grad(Stream& stream, const GroupedGemmWeightGrad& op) {
    checked(stream, &Backend::grouped_gemm_weight_grad, op);
    const i64 height = op.a.cols(), width = op.b.cols(), groups = op.c.rows();
    if (groups * height * width == 0) return;
    Tensor a_rows, b_rows, a_room, b_room;
    ConstTensorView a = gathered(stream, op.a, op.a_rows, a_rows),
                    b = gathered(stream, op.b, op.b_rows, b_rows);
    if (a.dtype != b.dtype) {
        a = widened(stream, a, a_room);
        b = widened(stream, b, b_room);
    }
    Tensor product = allocate({height, width}, accumulation_type(a.dtype));
    const i64 parts = std::ssize(op.rows_per_part) / groups;
    i64 first = 0;
    for (i64 part = 0; part < groups * parts; ++part) {
        const i64 rows = op.rows_per_part[static_cast<std::size_t>(part)];
        if (rows == 0) continue;
        multiply(
            stream,
            {.a = a.slice_rows(first, rows), .b = b.slice_rows(first, rows), .c = product, .trans_a = true});
        fold(stream, product, op.c.slice_rows(part / parts, 1).reshaped({height, width}), {});
        first += rows;
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

// cuBLAS packs for itself.
PackedElements CudaBackend::packed_elements(Shape, DType, i64) const {
    return {};
}
void CudaBackend::pack(Stream&, const PackWeight&) {}

}  // namespace moesaic
