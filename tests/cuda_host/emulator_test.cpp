// The emulator itself: what it lets kernels do, and that it reports what CUDA leaves undefined. Each planted
// defect has to be reported under every seed that is tried.
#include "tests/cuda_host/emulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

#include "runtime/cuda/gpu.h"

namespace cuda_host {
namespace {

using ::testing::HasSubstr;

constexpr int kThreads = 100;  // not a multiple of a warp

/// Numbers in device memory, and a stream.
class Emulator : public ::testing::TestWithParam<std::uint64_t> {
  protected:
    void SetUp() override {
        reset({.seed = GetParam()});
        ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
        ASSERT_EQ(cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking), cudaSuccess);
        void* memory = nullptr;
        ASSERT_EQ(cudaMallocManaged(&memory, kThreads * sizeof(int), cudaMemAttachGlobal), cudaSuccess);
        numbers_ = static_cast<int*>(memory);
        std::iota(numbers_, numbers_ + kThreads, 0);
    }
    void TearDown() override {
        cudaStreamDestroy(stream_);
        cudaStreamDestroy(other_);
        cudaFree(numbers_);
        reset({});
        EXPECT_EQ(live_allocations(), 0);
    }
    cudaError_t finish() { return cudaStreamSynchronize(stream_); }

    cudaStream_t stream_ = nullptr, other_ = nullptr;
    int* numbers_ = nullptr;
};

/// out[i] = sum of the block's numbers, by shared memory.
__global__ void block_sum(int* numbers, bool first_barrier, bool second_barrier) {
    GPU_SHARED(int, part, kThreads);
    const int i = static_cast<int>(threadIdx.x);
    part[i] = numbers[i];
    if (first_barrier) __syncthreads();
    int sum = 0;
    for (int j = 0; j < kThreads; ++j) sum += part[j];
    if (second_barrier) __syncthreads();
    part[i] = -1;
    numbers[i] = sum;
}

TEST_P(Emulator, SumsOfABlock) {
    GPU_LAUNCH(block_sum, 1, kThreads, 0, stream_, numbers_, true, true);
    EXPECT_EQ(numbers_[5], 5) << "nothing runs before somebody waits";
    ASSERT_EQ(finish(), cudaSuccess) << first_finding();
    for (int i = 0; i < kThreads; ++i) EXPECT_EQ(numbers_[i], kThreads * (kThreads - 1) / 2);
    EXPECT_EQ(kernels_run(), 1);
}

TEST_P(Emulator, AMissingBarrierShowsAsAWrongSum) {
    int wrong = 0;
    for (const bool first : {false, true}) {
        if (first && GetParam() > 1) continue;
        std::iota(numbers_, numbers_ + kThreads, 0);
        GPU_LAUNCH(block_sum, 1, kThreads, 0, stream_, numbers_, first, false);
        ASSERT_EQ(finish(), cudaSuccess);
        for (int i = 0; i < kThreads; ++i) wrong += numbers_[i] == kThreads * (kThreads - 1) / 2 ? 0 : 1;
        EXPECT_GT(wrong, 0) << "without the " << (first ? "second" : "first") << " barrier";
    }
}

__global__ void warp_sum(int* numbers, bool leave_early, bool in_branches) {
    const int i = static_cast<int>(threadIdx.x);
    int value = numbers[i];
    if (leave_early && i == 22) return;
    for (int distance = 16; distance > 0; distance /= 2) {
        if (in_branches && i % 2 == 0) {
            value += __shfl_xor_sync(0xffffffffu, value, distance);
        } else {
            value += __shfl_xor_sync(0xffffffffu, value, distance);
        }
    }
    numbers[i] = value;
}

TEST_P(Emulator, SumsOfAWarp) {
    GPU_LAUNCH(warp_sum, 1, 64, 0, stream_, numbers_, false, false);
    ASSERT_EQ(finish(), cudaSuccess) << first_finding();
    EXPECT_EQ(numbers_[3], 31 * 16);
    EXPECT_EQ(numbers_[40], 31 * 16 + 32 * 32);
}

TEST_P(Emulator, ALaneThatLeavesTheShuffleIsReported) {
    GPU_LAUNCH(warp_sum, 1, 32, 0, stream_, numbers_, true, false);
    EXPECT_EQ(finish(), cudaErrorLaunchFailure);
    EXPECT_THAT(first_finding(), HasSubstr("thread 22 has ended"));
}

TEST_P(Emulator, ShufflesOfTwoLinesAreReported) {
    GPU_LAUNCH(warp_sum, 1, 32, 0, stream_, numbers_, false, true);
    EXPECT_EQ(finish(), cudaErrorLaunchFailure);
    EXPECT_THAT(first_finding(), HasSubstr("divergent warp shuffle"));
}

TEST_P(Emulator, AShuffleOfPartOfAWarpNeedsItsMask) {
    GPU_LAUNCH(warp_sum, 1, 20, 0, stream_, numbers_, false, false);  // a warp of 20 threads
    EXPECT_EQ(finish(), cudaErrorLaunchFailure);
    EXPECT_THAT(first_finding(), HasSubstr("takes no part"));
}

__global__ void barrier_in_a_branch(int* numbers, bool leave) {
    if (threadIdx.x < 60) {
        __syncthreads();
    } else if (!leave) {
        numbers[0] = 1;
        __syncthreads();
    }
}

TEST_P(Emulator, ABarrierThatNotAllReachIsReported) {
    GPU_LAUNCH(barrier_in_a_branch, 1, kThreads, 0, stream_, numbers_, true);
    EXPECT_EQ(finish(), cudaErrorLaunchFailure);
    EXPECT_THAT(first_finding(), HasSubstr("divergence: thread"));
}

TEST_P(Emulator, TwoBarriersAtOnceAreReported) {
    GPU_LAUNCH(barrier_in_a_branch, 1, kThreads, 0, stream_, numbers_, false);
    EXPECT_EQ(finish(), cudaErrorLaunchFailure);
    EXPECT_THAT(first_finding(), HasSubstr("two barriers at once"));
}

__global__ void meet_in_turn(int* order) {
    // A lane reads what another brought to the meeting before, while that one is already in the next.
    const int i = static_cast<int>(threadIdx.x);
    for (int round = 0; round < 20; ++round) {
        const int of_other = __shfl_sync(0xffffffffu, 100 * round + i, (i + round) % 32);
        if (of_other != 100 * round + (i + round) % 32) order[i] = -1;
    }
    const unsigned odd = __ballot_sync(0xffffffffu, i % 2);
    if (odd != 0xaaaaaaaau) order[i] = -2;
}

TEST_P(Emulator, LanesReadTheMeetingThatTheyAreIn) {
    GPU_LAUNCH(meet_in_turn, 1, 32, 0, stream_, numbers_);
    ASSERT_EQ(finish(), cudaSuccess) << first_finding();
    for (int i = 0; i < 32; ++i) EXPECT_EQ(numbers_[i], i);
}

__global__ void double_all(int* numbers) {
    numbers[threadIdx.x] *= 2;
}
__global__ void add_one(int* numbers) {
    numbers[threadIdx.x] += 1;
}

TEST_P(Emulator, EventsOrderStreams) {
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    GPU_LAUNCH(double_all, 1, kThreads, 0, other_, numbers_);
    ASSERT_EQ(cudaEventRecord(event, other_), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(stream_, event, 0), cudaSuccess);
    GPU_LAUNCH(add_one, 1, kThreads, 0, stream_, numbers_);
    ASSERT_EQ(finish(), cudaSuccess) << first_finding();
    for (int i = 0; i < kThreads; ++i) EXPECT_EQ(numbers_[i], 2 * i + 1);
}

TEST_P(Emulator, AWaitForAnEventThatWasNeverRecordedIsReported) {
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    EXPECT_NE(cudaStreamWaitEvent(stream_, event, 0), cudaSuccess);
    EXPECT_THAT(first_finding(), HasSubstr("never recorded"));
}

TEST_P(Emulator, TheNullStreamIsReported) {
    GPU_LAUNCH(add_one, 1, kThreads, 0, nullptr, numbers_);
    EXPECT_THAT(first_finding(), HasSubstr("null stream"));
}

TEST_P(Emulator, PageableMemoryIsReadWhenTheCopyIsIssued) {
    int source[2] = {7, 8};
    ASSERT_EQ(cudaMemcpyAsync(numbers_, source, sizeof source, cudaMemcpyDefault, stream_), cudaSuccess);
    source[0] = 0;
    int target[2] = {0, 0};
    ASSERT_EQ(cudaMemcpyAsync(target, numbers_, sizeof target, cudaMemcpyDefault, stream_), cudaSuccess);
    EXPECT_EQ(target[0], 7);
    EXPECT_EQ(target[1], 8);
}

TEST_P(Emulator, CopiesOutOfTheirBlockAreReported) {
    std::vector<int> target(kThreads + 1);
    EXPECT_NE(
        cudaMemcpyAsync(target.data(), numbers_, (kThreads + 1) * sizeof(int), cudaMemcpyDefault, stream_),
        cudaSuccess);
    EXPECT_THAT(first_finding(), HasSubstr("leaves its block"));
}

INSTANTIATE_TEST_SUITE_P(Seeds, Emulator, ::testing::Values(0, 1, 2, 3), ::testing::PrintToStringParamName());

/// Streams that nothing orders run in different orders under different seeds.
TEST(EmulatorSeeds, AMissingWaitShowsUnderSomeSeeds) {
    std::set<int> results;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        reset({.seed = seed});
        cudaStream_t first = nullptr, second = nullptr;
        cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
        cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
        void* memory = nullptr;
        ASSERT_EQ(cudaMallocManaged(&memory, sizeof(int), cudaMemAttachGlobal), cudaSuccess);
        int* const number = static_cast<int*>(memory);
        *number = 5;
        GPU_LAUNCH(double_all, 1, 1, 0, first, number);
        GPU_LAUNCH(add_one, 1, 1, 0, second, number);
        cudaStreamSynchronize(second);
        cudaStreamSynchronize(first);
        results.insert(*number);
        cudaFree(memory);
        cudaStreamDestroy(first);
        cudaStreamDestroy(second);
    }
    EXPECT_EQ(results, (std::set<int>{11, 12}));
}

TEST(EmulatorDevices, WithoutADriverThereIsNone) {
    reset({.seed = 0, .devices = 0});
    int count = 17;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    EXPECT_EQ(count, 17);
    reset({});
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace cuda_host
