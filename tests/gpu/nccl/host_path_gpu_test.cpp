// Conformance of a host's communicator on GPUs' streams: rows are copied to memory that both reach, and back.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include "comm/thread_communicator.h"
#include "runtime/cuda/cuda_backend.h"
#include "tests/conformance/communicator_suite.h"
#include "tests/cuda_host/emulator.h"

namespace moesaic {
namespace {

struct HostPathCase {
    conformance::CommunicatorCheck check;
    int ranks;
};

std::vector<HostPathCase> host_path_cases() {
    std::vector<HostPathCase> all;
    for (const auto& check : conformance::communicator_checks())
        for (const int ranks : {1, 3}) all.push_back({check, ranks});
    return all;
}

class HostPath : public testing::TestWithParam<HostPathCase> {};

TEST_P(HostPath, Holds) {
    cuda_host::reset({.seed = 5});
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    run_ranks(
        GetParam().ranks,
        [](Communicator& world) {
            CudaBackend backend(0);
            const conformance::Surroundings on_gpu{[&](const Communicator&) {
                                                       return conformance::Streams{
                                                           nullptr, backend.make_stream("exchange"),
                                                           backend.make_stream("compute")};
                                                   },
                                                   Device::cuda};
            conformance::Failures failures;
            GetParam().check.run(world, on_gpu, failures);
            for (const std::string& line : failures.lines())
                ADD_FAILURE() << "rank " << world.rank() << ": " << line;
        },
        60);
    EXPECT_EQ(cuda_host::first_finding(), "");
    EXPECT_EQ(cuda_host::live_allocations(), 0);
    cuda_host::reset({});
}

INSTANTIATE_TEST_SUITE_P(All, HostPath, testing::ValuesIn(host_path_cases()), [](const auto& one) {
    return fmt::format("{}_{}", one.param.check.name, one.param.ranks);
});

/// Every byte that is sent or received goes through page-locked memory once, whose blocks are used again.
TEST(HostPathStaging, CopiesRowsAndKeepsItsMemory) {
    cuda_host::reset({});
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    cudaDeviceProp properties{};
    (void)cudaGetDeviceProperties(&properties, 0);
    if (!std::string_view(properties.name).starts_with("emulated")) GTEST_SKIP() << "the emulator counts";
    constexpr i64 kWidth = 4, kRounds = 5;
    run_ranks(
        2,
        [](Communicator& world) {
            CudaBackend backend(0);
            const auto stream = backend.make_stream("exchange");
            // Rank 0 sends 3 rows to rank 1 and keeps 1; rank 1 sends none: an empty rank on the way.
            const std::vector<i64> sent = world.rank() == 0 ? std::vector<i64>{1, 3} : std::vector<i64>{0, 0};
            const std::vector<i64> received =
                world.rank() == 0 ? std::vector<i64>{1, 0} : std::vector<i64>{3, 0};
            Tensor rows = backend.allocate({sent[0] + sent[1], kWidth}, DType::f32);
            Tensor arrived = backend.allocate({received[0] + received[1], kWidth}, DType::f32);
            i64 held = 0;
            for (i64 round = 0; round < kRounds; ++round) {
                backend.fill(*stream, static_cast<double>(round + 1), rows);
                backend.zero(*stream, arrived);
                world.all_to_all_rows(*stream, rows, sent, arrived, received, {"rows"});
                stream->synchronize();
                for (i64 i = 0; i < arrived.elements(); ++i)
                    ASSERT_EQ(arrived.as<float>()[i], static_cast<float>(round + 1));
                world.barrier({"round"});
                if (world.rank() == 0 && round == 1) held = cuda_host::live_allocations();
                if (world.rank() == 0 && round == kRounds - 1) {
                    EXPECT_EQ(cuda_host::live_allocations(), held);
                }
                world.barrier({"counted"});
            }
        },
        60);
    EXPECT_EQ(cuda_host::staged_bytes(), kRounds * (4 + 1 + 3) * kWidth * 4);
    EXPECT_EQ(cuda_host::live_allocations(), 0);
    cuda_host::reset({});
}

}  // namespace
}  // namespace moesaic
