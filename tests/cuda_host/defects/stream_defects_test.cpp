// Defects of the host's side: work of two streams that nothing orders, memory that is given back too early.
// The kernels are clean.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/cuda_host/defects/defects.h"
#include "tests/cuda_host/modes.h"

namespace moesaic::defects {
namespace {

using cuda_host::Layer;
using cuda_host::Mode;
using cuda_host::modes;

using ::testing::ContainsRegex;

constexpr int kCount = 64;

/// Two streams, an event, and two arrays of which the first is written.
class Streams : public ::testing::TestWithParam<std::tuple<Mode, std::uint64_t>> {
  protected:
    void SetUp() override {
        cuda_host::Settings settings = std::get<Mode>(GetParam()).settings;
        settings.seed = std::get<std::uint64_t>(GetParam());
        cuda_host::reset(settings);
        cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking);
        cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking);
        cudaEventCreateWithFlags(&event_, cudaEventDisableTiming);
        x_ = room();
        y_ = room();
        for (int i = 0; i < kCount; ++i) x_[i] = static_cast<float>(i), y_[i] = 0;
    }
    void TearDown() override {
        cudaStreamDestroy(first_);
        cudaStreamDestroy(second_);
        cudaEventDestroy(event_);
        if (x_) cudaFree(x_);
        cudaFree(y_);
        cuda_host::reset({});
        EXPECT_EQ(cuda_host::live_allocations(), 0);
    }
    static float* room() {
        void* block = nullptr;
        cudaMallocManaged(&block, kCount * sizeof(float), cudaMemAttachGlobal);
        return static_cast<float*>(block);
    }
    void order() {
        cudaEventRecord(event_, first_);
        cudaStreamWaitEvent(second_, event_, 0);
    }
    static std::string copy(cudaStream_t stream, const float* from, float* to) {
        copy_rows(stream, from, to, 1, kCount, Defect::none);
        return {};
    }
    std::string found() {
        cudaStreamSynchronize(second_);
        cudaStreamSynchronize(first_);
        return cuda_host::first_finding();
    }
    [[nodiscard]] bool is_checked() const { return std::get<Mode>(GetParam()).layer != Layer::emulated; }

    cudaStream_t first_ = nullptr, second_ = nullptr;
    cudaEvent_t event_ = nullptr;
    float *x_ = nullptr, *y_ = nullptr;
};

TEST_P(Streams, AnEventOrdersAWriteBeforeARead) {
    double_all(first_, x_, y_, kCount, Defect::none);
    order();
    copy(second_, y_, x_);
    EXPECT_EQ(found(), "");
    EXPECT_EQ(x_[3], 6);
}

TEST_P(Streams, AMissingWaitIsARace) {
    if (!is_checked()) GTEST_SKIP() << "for the memory checker";
    copy(first_, x_, y_);
    double_all(first_, x_, y_, kCount, Defect::none);
    copy(second_, y_, x_);
    const std::string finding = found();
    EXPECT_THAT(finding,
                ContainsRegex("race: .* in stream .* nothing orders it after the .* in stream "));
}

TEST_P(Streams, OverwritingWhatAnotherStreamReadsIsARace) {
    if (!is_checked()) GTEST_SKIP() << "for the memory checker";
    copy(first_, x_, y_);
    float* const other = room();
    for (int i = 0; i < kCount; ++i) other[i] = 1;
    copy(second_, other, x_);
    const std::string finding = found();
    EXPECT_THAT(finding, ContainsRegex("race: "));
    cudaFree(other);
}

/// The second stream reads too before it writes, which must not hide the reader of the first.
TEST_P(Streams, UpdatingInPlaceWhatAnotherStreamReadsIsARace) {
    if (!is_checked()) GTEST_SKIP() << "for the memory checker";
    copy(first_, x_, y_);
    double_all(second_, x_, x_, kCount, Defect::none);
    const std::string finding = found();
    EXPECT_THAT(finding, ContainsRegex("race: "));
}

TEST_P(Streams, AnEventOfTooEarlyIsNoOrder) {
    if (!is_checked()) GTEST_SKIP() << "for the memory checker";
    copy(first_, x_, y_);
    order();
    double_all(first_, x_, y_, kCount, Defect::none);
    copy(second_, y_, x_);
    const std::string finding = found();
    EXPECT_THAT(finding, ContainsRegex("race: "));
}

TEST_P(Streams, AWaitOfTheHostIsOrder) {
    copy(first_, x_, y_);
    cudaStreamSynchronize(first_);
    double_all(second_, x_, x_, kCount, Defect::none);
    copy(second_, x_, y_);
    EXPECT_EQ(found(), "");
}

TEST_P(Streams, CopiesAreChecked) {
    if (!is_checked()) GTEST_SKIP() << "for the memory checker";
    cudaMemsetAsync(y_, 0, kCount * sizeof(float), first_);
    copy(second_, x_, y_);
    const std::string finding = found();
    EXPECT_THAT(finding, ContainsRegex("race: .*a memset in stream"));
}

TEST_P(Streams, WhatIsFreedTooEarlyIsReported) {
    if (!is_checked()) GTEST_SKIP() << "for the memory checker";
    copy(first_, x_, y_);
    cudaFree(x_);
    x_ = nullptr;
    const std::string finding = found();
    EXPECT_THAT(finding, ContainsRegex("use after free: read at defects.cu:[0-9]+ by thread "));
}

TEST_P(Streams, ResultsThatTheHostReadsTooEarlyAreNotThere) {
    copy(first_, x_, y_);
    EXPECT_NE(y_[5], 5);
    EXPECT_EQ(found(), "");
    EXPECT_EQ(y_[5], 5);
}

INSTANTIATE_TEST_SUITE_P(All, Streams,
                         ::testing::Combine(::testing::ValuesIn(modes()), ::testing::Values(0, 1, 2, 3)),
                         [](const auto& one) {
                             return fmt::format("{}_{}", std::get<Mode>(one.param).name,
                                                std::get<std::uint64_t>(one.param));
                         });

}  // namespace
}  // namespace moesaic::defects
