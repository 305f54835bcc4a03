// Conformance of NCCL's communicator: ranks as threads, each with a GPU, real or emulated.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "comm/nccl/nccl_communicator.h"
#include "comm/thread_communicator.h"
#include "runtime/base/run_context.h"
#include "runtime/cuda/cuda_backend.h"
#include "tests/conformance/communicator_suite.h"
#include "tests/cuda_host/emulator.h"

extern "C" bool moesaic_nccl_make_id(moesaic::NcclId* id, std::string* problem);

namespace moesaic {
namespace {

/// Collective over `host`. Null, and why, where NCCL could not be used.
std::unique_ptr<Communicator> connect(Communicator& host, std::string& problem) {
    NcclId id{};
    if (host.rank() == 0) {
        EXPECT_TRUE(moesaic_nccl_make_id(&id, &problem)) << problem;
    }
    std::array<i64, 16> words{};
    std::copy_n(id.data(), id.size(), reinterpret_cast<char*>(words.data()));
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("start-up");
    host.broadcast(*stream, view_of(words.data(), {16}), 0, {"id"});
    std::copy_n(reinterpret_cast<const char*>(words.data()), id.size(), id.data());
    return NcclCommunicator::connect(host, id, &problem);
}

/// Collective over `host`.
std::unique_ptr<Communicator> connected(Communicator& host) {
    std::string problem;
    auto world = connect(host, problem);
    EXPECT_TRUE(world) << problem;
    return world;
}

conformance::Surroundings on_gpu(CudaBackend& backend) {
    return {[&backend](const Communicator&) {
                return conformance::Streams{nullptr, backend.make_stream("exchange"),
                                            backend.make_stream("compute")};
            },
            Device::cuda};
}

struct Case {
    conformance::CommunicatorCheck check;
    int ranks;
    u64 seed;  // of the emulator
};

std::vector<Case> cases() {
    std::vector<Case> all;
    for (const auto& check : conformance::communicator_checks())
        for (const int ranks : {1, 2, 3, 4, 8})
            for (const u64 seed : {0, 1, 5})
                if (seed == 5 || ranks == 3) all.push_back({check, ranks, seed});
    return all;
}

class NcclConformance : public testing::TestWithParam<Case> {
  protected:
    void SetUp() override {
        cuda_host::reset(
            {.seed = GetParam().seed, .devices = GetParam().ranks, .exclusive_nccl = GetParam().seed > 0});
        int devices = 0;
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < GetParam().ranks)
            GTEST_SKIP() << devices << " devices for " << GetParam().ranks << " ranks";
    }
    void TearDown() override {
        EXPECT_EQ(cuda_host::first_finding(), "");
        EXPECT_EQ(cuda_host::live_allocations(), 0);
        cuda_host::reset({});
    }
};

TEST_P(NcclConformance, Holds) {
    run_ranks(
        GetParam().ranks,
        [](Communicator& host) {
            CudaBackend backend(host.rank());
            const auto world = connected(host);
            ASSERT_TRUE(world);
            conformance::Failures failures;
            GetParam().check.run(*world, on_gpu(backend), failures);
            for (const std::string& line : failures.lines())
                ADD_FAILURE() << "rank " << world->rank() << ": " << line;
        },
        60);
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
    return fmt::format("{}_{}_seed{}", info.param.check.name, info.param.ranks, info.param.seed);
}

INSTANTIATE_TEST_SUITE_P(All, NcclConformance, testing::ValuesIn(cases()), case_name);

/// Ranks of `count` devices with a stream each for computing and exchanging.
void on_ranks(int count, u64 seed, double timeout_seconds,
              const std::function<void(Communicator&, CudaBackend&, Stream&, Stream&)>& body) {
    cuda_host::reset({.seed = seed, .devices = count, .exclusive_nccl = true});
    run_ranks(
        count,
        [&](Communicator& host) {
            CudaBackend backend(host.rank());
            const auto compute = backend.make_stream("compute"), exchange = backend.make_stream("exchange");
            const auto world = connected(host);
            ASSERT_TRUE(world);
            body(*world, backend, *compute, *exchange);
        },
        timeout_seconds);
}

bool emulated() {
    cudaDeviceProp properties{};
    return cudaGetDeviceProperties(&properties, 0) == cudaSuccess &&
           std::string_view(properties.name).starts_with("emulated");
}

bool has_devices(int count) {
    int devices = 0;
    cuda_host::reset({.devices = count});
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices >= count;
}

/// How many of 16 orders show wrong rows where each rank writes its rows on compute and sends them on
/// exchange.
int wrong_orders(bool with_wait) {
    int wrong = 0;
    for (u64 seed = 0; seed < 16; ++seed) {
        std::atomic<bool> differs = false;
        on_ranks(2, seed, 60,
                 [&](Communicator& world, CudaBackend& backend, Stream& compute, Stream& exchange) {
                     constexpr i64 kRows = 6;
                     Tensor sent = backend.allocate({2 * kRows}, DType::f32);
                     Tensor received = backend.allocate({2 * kRows}, DType::f32);
                     backend.fill(compute, world.rank() + 7, sent);
                     if (with_wait) exchange.wait(compute.record());
                     const std::vector<i64> rows(2, kRows);
                     world.all_to_all_rows(exchange, sent, rows, received, rows, {"dispatch"});
                     compute.wait(exchange.record());
                     exchange.synchronize();
                     compute.synchronize();
                     for (i64 i = 0; i < 2 * kRows; ++i)
                         if (received.as<float>()[i] != static_cast<float>(i / kRows + 7)) differs = true;
                 });
        if (differs) ++wrong;
        EXPECT_EQ(cuda_host::first_finding(), "");
    }
    return wrong;
}

TEST(NcclStreams, RowsThatEventsOrderAreRightInEveryOrder) {
    if (!has_devices(2)) GTEST_SKIP() << "two devices are needed";
    EXPECT_EQ(wrong_orders(true), 0);
}

TEST(NcclStreams, AMissingWaitShowsInSomeOrders) {
    if (!has_devices(2)) GTEST_SKIP() << "two devices are needed";
    if (!emulated()) GTEST_SKIP() << "a GPU does not choose its order by a seed";
    const int wrong = wrong_orders(false);
    RecordProperty("wrong_orders", wrong);
    EXPECT_GE(wrong, 3) << "of 16";
}

TEST(NcclFailures, ARankThatDoesNotComeIsATimeOutThatNamesTheCollective) {
    if (!has_devices(3)) GTEST_SKIP() << "three devices are needed";
    try {
        on_ranks(3, 2, 60, [&](Communicator& world, CudaBackend& backend, Stream&, Stream& exchange) {
            Tensor rows = backend.allocate({3, 4}, DType::f32);
            backend.zero(exchange, rows);
            exchange.synchronize();
            world.set_timeout_seconds(0.5);
            run_context().step = 7;
            if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(2));
            const std::vector<i64> one(3, 1);
            Tensor received = backend.allocate({3, 4}, DType::f32);
            world.all_to_all_rows(exchange, rows, one, received, one, {"dispatch", 5});
            exchange.synchronize();
        });
        FAIL() << "nobody missed rank 1";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), testing::ContainsRegex("rank [02] of 3, step 7: no answer for 0.5 s in "
                                                         "all_to_all_rows 'dispatch, layer 5' on "
                                                         "communicator 'world'"));
    }
}

TEST(NcclFailures, OneRanksFailureStopsTheOthers) {
    if (!has_devices(3)) GTEST_SKIP() << "three devices are needed";
    try {
        on_ranks(3, 0, 60, [&](Communicator& world, CudaBackend& backend, Stream&, Stream& exchange) {
            if (world.rank() == 1) throw Error("the disk is full");
            Tensor number = backend.allocate({1}, DType::f32);
            backend.zero(exchange, number);
            world.all_reduce(exchange, number, ReduceOp::sum, {"sum"});
            exchange.synchronize();
        });
        FAIL() << "nobody noticed";
    } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "the disk is full");
    }
}

/// Whichever rank it is: all learn that NCCL cannot be used and why not, and what they met over goes on.
TEST(NcclFailures, AFirstExchangeThatFailsLeavesEveryRankWithoutNccl) {
    for (const auto& [ranks, failing] : {std::pair{2, 0}, {2, 1}, {3, 1}, {4, 3}}) {
        SCOPED_TRACE(fmt::format("rank {} of {}", failing, ranks));
        if (!has_devices(ranks) || !emulated()) GTEST_SKIP() << "emulated devices fail when they are told to";
        cuda_host::reset({.devices = ranks, .failing_nccl_rank = failing});
        std::atomic<int> told = 0, reasons = 0;
        run_ranks(
            ranks,
            [&](Communicator& host) {
                const CudaBackend backend(host.rank());
                std::string problem;
                EXPECT_FALSE(connect(host, problem));
                told += problem.empty() ? 0 : 1;
                reasons += problem.find("the network is out of order") != std::string::npos ? 1 : 0;
                i64 one = 1;
                HostStreamScheduler scheduler(StreamMode::inline_execution);
                const auto stream = scheduler.make_stream("after");
                host.all_reduce(*stream, view_of(&one, {1}), ReduceOp::sum, {"after NCCL"});
                EXPECT_EQ(one, host.size());
            },
            20);
        EXPECT_EQ(told, ranks);
        EXPECT_GE(reasons, 1);
        EXPECT_EQ(cuda_host::live_allocations(), 0);
    }
    cuda_host::reset({});
}

}  // namespace
}  // namespace moesaic
