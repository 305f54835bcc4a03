// Where nvcc does not build for compute capability 9.0, and on emulated GPUs.
#include "runtime/cuda/hopper/grouped_products.h"

namespace moesaic::hopper {

int multiprocessors_for_grouped_products() {
    return 0;
}

cudaError_t start_grouped_product(cudaStream_t, int, Product, const Matrices&, const Matrices&,
                                  const GroupedArguments&) {
    return cudaErrorNoKernelImageForDevice;
}

}  // namespace moesaic::hopper
