// What the back end makes of a device's refusals, which no table of operations shows.
#include "runtime/cuda/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cuda_host/emulator.h"

namespace moesaic {
namespace {

using ::testing::HasSubstr;

/// As on a device of another architecture: a launch returns nothing, and nobody asks before the next wait.
TEST(CudaBackend, NamesAKernelThatDoesNotStart) {
    cuda_host::reset({.refused_kernel = "AddQuads"});
    {
        CudaBackend backend(0);
        const auto stream = backend.make_stream("compute");
        Tensor x = backend.allocate({3}, DType::f32), y = backend.allocate({3}, DType::f32);
        backend.fill(*stream, 1, x);
        backend.fill(*stream, 2, y);
        try {
            backend.add(*stream, x, y);
            FAIL() << "nobody noticed";
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr("CUDA: starting moesaic::kernels::AddQuads<float"));
            EXPECT_THAT(error.what(), HasSubstr("MOESAIC_CUDA_ARCHITECTURES"));
        }
        EXPECT_NO_THROW(stream->synchronize());
    }
    EXPECT_EQ(cuda_host::first_finding(), "");
    EXPECT_EQ(cuda_host::live_allocations(), 0);
    cuda_host::reset({});
}

/// CUDA itself would hand it out, and then move pages between host and device at every use.
TEST(CudaBackend, TakesNoMoreMemoryThanTheDeviceHas) {
    cuda_host::reset({.memory_bytes = std::size_t{1} << 20});
    {
        CudaBackend backend(0);
        const Tensor most = backend.allocate({200 << 10}, DType::f32);
        try {
            const Tensor more = backend.allocate({200 << 10}, DType::f32);
            FAIL() << "more than there is";
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr("out of memory: "));
        }
    }
    {
        CudaBackend backend(0);
        EXPECT_NO_THROW((void)backend.allocate({200 << 10}, DType::f32))
            << "what was given back is there again";
    }
    EXPECT_EQ(cuda_host::live_allocations(), 0);
    cuda_host::reset({});
}

}  // namespace
}  // namespace moesaic
