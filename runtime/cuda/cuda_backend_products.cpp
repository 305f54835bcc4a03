// Products by cuBLAS. Its matrices have their columns first: c = a b of rows is cᵀ = bᵀ aᵀ there.
#include "runtime/cuda/check.h"
#include "runtime/cuda/cublas_arguments.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

namespace {

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
    const auto [m, n, p] = extents_of(op);
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

// cuBLAS packs for itself.
PackedElements CudaBackend::packed_elements(Shape, DType, i64) const {
    return {};
}
void CudaBackend::pack(Stream&, const PackWeight&) {}

}  // namespace moesaic
