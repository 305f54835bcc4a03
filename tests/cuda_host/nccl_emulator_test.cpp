// The emulated NCCL: what it does, and that it reports what would hang or be undefined on GPUs. Each planted
// defect is tried under 16 orders of streams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "runtime/cuda/gpu.h"
#include "tests/cuda_host/emulator.h"

namespace cuda_host {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t kSeeds = 16;
constexpr int kNumbers = 16;
constexpr std::size_t kCount = kNumbers;

/// A rank: a thread with a device, two communicators of all ranks, two streams and numbers on the device.
struct Rank {
    int rank = 0, next = 0, before = 0;
    ncclComm_t world = nullptr, again = nullptr;
    cudaStream_t first = nullptr, second = nullptr;
    float *numbers = nullptr, *received = nullptr;

    void finish() const {
        cudaStreamSynchronize(first);
        cudaStreamSynchronize(second);
    }
};

void wait_for(ncclComm_t communicator) {
    ncclResult_t state = ncclInProgress;
    while (ncclCommGetAsyncError(communicator, &state) == ncclSuccess && state == ncclInProgress)
        std::this_thread::yield();
}

void run_one(Rank& mine, int ranks, const ncclUniqueId& id, const std::function<void(Rank&)>& body) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = "world";
    cudaSetDevice(mine.rank);
    ncclCommInitRankConfig(&mine.world, ranks, id, mine.rank, &config);
    wait_for(mine.world);
    config.commName = "again";
    ncclCommSplit(mine.world, 0, mine.rank, &mine.again, &config);
    wait_for(mine.world);
    wait_for(mine.again);
    for (cudaStream_t* stream : {&mine.first, &mine.second})
        cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    for (float** memory : {&mine.numbers, &mine.received}) {
        cudaMallocManaged(memory, kCount * sizeof(float), cudaMemAttachGlobal);
        for (int i = 0; i < kNumbers; ++i) (*memory)[i] = static_cast<float>(100 * mine.rank + i);
    }
    body(mine);
    mine.finish();
    leave();
}

/// What was found; empty where all is well.
std::string found_by(int ranks, const Settings& settings, const std::function<void(Rank&)>& body) {
    reset(settings);
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    std::vector<Rank> all(static_cast<std::size_t>(ranks));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
        Rank& mine = all[static_cast<std::size_t>(rank)];
        mine.rank = rank;
        mine.next = (rank + 1) % ranks;
        mine.before = (rank + ranks - 1) % ranks;
        threads.emplace_back([&] { run_one(mine, ranks, id, body); });
    }
    for (std::thread& thread : threads) thread.join();
    const std::string finding = first_finding();
    reset({});
    for (Rank& mine : all) {
        ncclCommDestroy(mine.again);
        ncclCommDestroy(mine.world);
        for (cudaStream_t stream : {mine.first, mine.second}) cudaStreamDestroy(stream);
        for (float* memory : {mine.numbers, mine.received}) cudaFree(memory);
    }
    EXPECT_EQ(live_allocations(), 0);
    return finding;
}

Settings settings_of(std::uint64_t seed, int ranks, bool exclusive = false) {
    return {.seed = seed, .devices = ranks, .exclusive_nccl = exclusive};
}

/// To the next rank and from the one before.
void ring(const Rank& mine, std::size_t sent, std::size_t received) {
    ncclGroupStart();
    if (sent > 0) ncclSend(mine.numbers, sent, ncclFloat32, mine.next, mine.world, mine.first);
    ncclRecv(mine.received, received, ncclFloat32, mine.before, mine.world, mine.first);
    ncclGroupEnd();
}

TEST(EmulatedNccl, RingsAndSumsAreRightInEveryOrder) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const std::string finding = found_by(3, settings_of(seed, 3, true), [](Rank& mine) {
            ring(mine, kCount, kCount);
            ncclAllReduce(mine.numbers, mine.numbers, kCount, ncclFloat32, ncclSum, mine.world, mine.first);
            mine.finish();
            for (int i = 0; i < kNumbers; ++i) {
                EXPECT_EQ(mine.received[i], static_cast<float>(100 * mine.before + i));
                EXPECT_EQ(mine.numbers[i], static_cast<float>(300 + 3 * i));
            }
        });
        EXPECT_EQ(finding, "") << "seed " << seed;
    }
}

TEST(EmulatedNccl, AForgottenSendIsNamed) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const std::string finding = found_by(
            3, settings_of(seed, 3), [](Rank& mine) { ring(mine, mine.rank == 1 ? 0 : kCount, kCount); });
        EXPECT_THAT(finding, AllOf(HasSubstr("all ranks wait: rank 2 of 'world', stream"),
                                   HasSubstr("recv of 16 float32 from rank 1")))
            << "seed " << seed;
    }
}

TEST(EmulatedNccl, CountsThatDifferAreNamed) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const std::string finding = found_by(
            2, settings_of(seed, 2), [](Rank& mine) { ring(mine, kCount, mine.rank == 1 ? 8 : kCount); });
        EXPECT_THAT(finding, AllOf(HasSubstr("send of 16 float32 to rank 1"),
                                   HasSubstr("recv of 8 float32 from rank 0")))
            << "seed " << seed;
    }
}

TEST(EmulatedNccl, AllReducesOfDifferentCountsAreNamed) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const std::string finding = found_by(3, settings_of(seed, 3), [](Rank& mine) {
            ncclAllReduce(mine.numbers, mine.numbers, mine.rank == 2 ? 8 : kCount, ncclFloat32, ncclSum,
                          mine.world, mine.first);
        });
        EXPECT_THAT(finding,
                    AllOf(HasSubstr("all-reduce of 16 float32"), HasSubstr("all-reduce of 8 float32")))
            << "seed " << seed;
    }
}

/// On two streams that nothing orders.
void two_communicators(const Rank& mine, bool world_first) {
    for (const bool world : {world_first, !world_first}) {
        float* const data = world ? mine.numbers : mine.received;
        ncclAllReduce(data, data, kCount, ncclFloat32, ncclSum, world ? mine.world : mine.again,
                      world ? mine.first : mine.second);
    }
}

int deadlocks(const char* launch_order, const std::function<void(Rank&)>& body) {
    int found = 0;
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", launch_order, 1);
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const std::string finding = found_by(2, settings_of(seed, 2, true), body);
        if (finding.empty()) continue;
        ++found;
        EXPECT_THAT(finding,
                    AllOf(HasSubstr("all ranks wait"), HasSubstr("of 'world'"), HasSubstr("of 'again'")));
    }
    unsetenv("NCCL_LAUNCH_ORDER_IMPLICIT");
    return found;
}

TEST(EmulatedNccl, TwoCommunicatorsOnUnorderedStreamsDeadlockInSomeOrders) {
    const auto body = [](Rank& mine) { two_communicators(mine, true); };
    const int found = deadlocks("0", body);
    RecordProperty("deadlocks", found);
    EXPECT_GE(found, 3) << "of " << kSeeds;
    EXPECT_LT(found, static_cast<int>(kSeeds));
    EXPECT_EQ(deadlocks("1", body), 0) << "launched in the order of the calls";
}

TEST(EmulatedNccl, TheOrderOfCallsHasToBeTheSameOnEveryRank) {
    EXPECT_EQ(deadlocks("1", [](Rank& mine) { two_communicators(mine, mine.rank == 0); }),
              static_cast<int>(kSeeds));
}

TEST(EmulatedNccl, MemoryOfTheHostIsReported) {
    const std::string finding = found_by(1, settings_of(0, 1), [](Rank& mine) {
        std::vector<float> numbers(kCount);
        ncclAllReduce(numbers.data(), numbers.data(), kCount, ncclFloat32, ncclSum, mine.world, mine.first);
    });
    EXPECT_THAT(finding, HasSubstr("leaves its block of device memory"));
}

TEST(EmulatedNccl, TwoRanksOnOneDeviceAreRefused) {
    reset({.seed = 0, .devices = 1});
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    std::vector<ncclComm_t> all(2);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    for (int rank = 0; rank < 2; ++rank)
        ncclCommInitRankConfig(&all[static_cast<std::size_t>(rank)], 2, id, rank, &config);
    ncclResult_t state = ncclSuccess;
    ncclCommGetAsyncError(all[0], &state);
    EXPECT_EQ(state, ncclInvalidUsage);
    EXPECT_THAT(ncclGetLastError(all[0]), HasSubstr("Duplicate GPU"));
    for (ncclComm_t one : all) ncclCommAbort(one);
}

}  // namespace
}  // namespace cuda_host
