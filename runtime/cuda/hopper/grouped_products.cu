// The kernels of grouped products, and the maps of their operands for tensor copies.
//
// Measured on an H100 in TFLOP/s: 64 experts of about 1024 rows, [rows,2048] over 2048 terms, with 3 stages
// 590, with 4 537; tiles of 256 x 128 535, 128 x 128 456; two blocks that share an operand 381; warpgroups
// with a tile each in turn 477. Gradients of the weights with 4 stages 411 written and 270 added, with 3 390
// and 259, without their f64 sums 698: memory bounds them.
#include "runtime/cuda/hopper/grouped_products.h"

#include <algorithm>

#include "runtime/cuda/hopper/instructions.h"
//
#include "runtime/cuda/hopper/grouped_kernel.h"

namespace moesaic::hopper {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// The driver's function by way of the runtime, so that nothing is linked with the driver; null where it has
/// none.
Encode encoder() {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    constexpr unsigned kSinceVersion = 12000;
    const cudaError_t result = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                                kSinceVersion, cudaEnableDefault, &found);
    return result == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(function)
                                                                         : nullptr;
}

/// Of boxes of `box_rows` rows of 64 elements, 128 bytes, which stand in shared memory in the order that
/// operand_at names.
bool make_map(CUtensorMap& map, const Matrices& operand, int box_rows) {
    static const Encode encode = encoder();
    const cuuint64_t extents[3] = {static_cast<cuuint64_t>(operand.columns),
                                   static_cast<cuuint64_t>(operand.rows),
                                   static_cast<cuuint64_t>(operand.count)};
    const cuuint64_t strides[2] = {extents[0] * 2, extents[0] * extents[1] * 2};
    const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_rows), 1}, steps[3] = {1, 1, 1};
    return encode &&
           encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(operand.data), extents,
                  strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <class Form>
cudaError_t start(cudaStream_t stream, int multiprocessors, const Matrices& a, const Matrices& b,
                  const GroupedArguments& arguments) {
    CUtensorMap map_a, map_b;
    if (!make_map(map_a, a, Form::kBoxRowsA) || !make_map(map_b, b, Form::kBoxRowsB))
        return cudaErrorInvalidValue;
    const auto kernel = grouped_product_kernel<Form>;
    const cudaError_t allowed =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Form::kSharedBytes);
    if (allowed != cudaSuccess) return allowed;
    const int blocks = std::min(multiprocessors, arguments.tiles);
    kernel<<<static_cast<unsigned>(blocks), kBlockThreads, Form::kSharedBytes, stream>>>(map_a, map_b,
                                                                                         arguments);
    return cudaGetLastError();
}

}  // namespace

int multiprocessors_for_grouped_products() {
    const auto attribute = [](cudaDeviceAttr name) {
        int device = 0, value = 0;
        const bool told = cudaGetDevice(&device) == cudaSuccess &&
                          cudaDeviceGetAttribute(&value, name, device) == cudaSuccess;
        return told ? value : 0;
    };
    const bool has_instructions = attribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
                                  attribute(cudaDevAttrComputeCapabilityMinor) == 0;
    return has_instructions ? attribute(cudaDevAttrMultiProcessorCount) : 0;
}

cudaError_t start_grouped_product(cudaStream_t stream, int multiprocessors, Product product,
                                  const Matrices& a, const Matrices& b, const GroupedArguments& arguments) {
    return with_form(product, [&]<class Form>(Form /*form*/) {
        return start<Form>(stream, multiprocessors, a, b, arguments);
    });
}

}  // namespace moesaic::hopper
