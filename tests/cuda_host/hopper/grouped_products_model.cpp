// The kernels of runtime/cuda/hopper on the emulator, in the place of grouped_products.cu: the same source
// with a model of its instructions.
#include <algorithm>

#include "runtime/cuda/hopper/grouped_products.h"
#include "tests/cuda_host/hopper/instructions_model.h"
//
#include "runtime/cuda/hopper/grouped_kernel.h"

namespace moesaic::hopper {

namespace {

CUtensorMap map_of(const Matrices& operand, int box_rows) {
    return cuda_host::map_of({static_cast<const std::uint16_t*>(operand.data),
                              {operand.columns, operand.rows, operand.count},
                              box_rows});
}

template <class Form>
cudaError_t start(cudaStream_t stream, int multiprocessors, const Matrices& a, const Matrices& b,
                  const GroupedArguments& arguments) {
    const auto blocks = static_cast<unsigned>(std::min(multiprocessors, arguments.tiles));
    GPU_LAUNCH(grouped_product_kernel<Form>, dim3(blocks), dim3(kBlockThreads), Form::kSharedBytes, stream,
               map_of(a, Form::kBoxRowsA), map_of(b, Form::kBoxRowsB), arguments);
    return cudaGetLastError();
}

}  // namespace

/// Few, so that each takes several tiles.
int multiprocessors_for_grouped_products() {
    return 3;
}

cudaError_t start_grouped_product(cudaStream_t stream, int multiprocessors, Product product,
                                  const Matrices& a, const Matrices& b, const GroupedArguments& arguments) {
    return with_form(product, [&]<class Form>(Form /*form*/) {
        return start<Form>(stream, multiprocessors, a, b, arguments);
    });
}

}  // namespace moesaic::hopper
