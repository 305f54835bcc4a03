// Choices and places are the CPU's to the last one, whatever the scores; and sums over tokens have the same
// bits in whatever order threads run.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/cuda/cuda_backend.h"
#include "tests/cuda_host/emulator.h"

namespace moesaic {
namespace {

/// Scores of few values, so that many are equal; some are NaN, some infinite, some zeros of both signs.
template <class T>
void fill_scores(TensorView scores) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    constexpr std::array<T, 9> kValues{std::numeric_limits<T>::quiet_NaN(),
                                       -kInfinity,
                                       kInfinity,
                                       T{-0.0},
                                       T{0.0},
                                       T{0.5},
                                       T{-1.25},
                                       std::numeric_limits<T>::denorm_min(),
                                       std::numeric_limits<T>::lowest()};
    const Philox random(3, "scores" + scores.shape.text());
    for (i64 i = 0; i < scores.shape.elements(); ++i)
        scores.as<T>()[i] = kValues[static_cast<std::size_t>(random.uniform(static_cast<u64>(i)) * 9)];
}

struct Selection {
    i64 experts, choices, groups = 1, top_groups = 1;
    bool bias = false;
};

template <class T>
std::vector<i32> chosen_by(Backend& backend, const Selection& selection) {
    constexpr i64 kRows = 37;
    constexpr DType kType = std::is_same_v<T, float> ? DType::f32 : DType::f64;
    const auto stream = backend.make_stream("compute");
    Tensor scores = backend.allocate({kRows, selection.experts}, kType);
    Tensor bias = backend.allocate({selection.experts}, kType);
    Tensor index = backend.allocate({kRows, selection.choices}, DType::int32);
    Tensor value = backend.allocate({kRows, selection.choices}, kType);
    fill_scores<T>(scores);
    for (i64 e = 0; e < selection.experts; ++e) bias.as<T>()[e] = static_cast<T>(e % 3) / 4;
    backend.top_k(*stream, {.scores = scores,
                            .index = index,
                            .value = value,
                            .bias = selection.bias ? bias.view() : ConstTensorView(),
                            .groups = selection.groups,
                            .top_groups = selection.top_groups,
                            .group_score = GroupScore::top2_sum});
    stream->synchronize();
    std::vector<i32> chosen(index.as<i32>(), index.as<i32>() + index.elements());
    for (i64 i = 0; i < index.elements(); ++i) {
        const T want = scores.as<T>()[i / selection.choices * selection.experts + index.as<i32>()[i]];
        EXPECT_TRUE(value.as<T>()[i] == want || (std::isnan(want) && std::isnan(value.as<T>()[i])));
    }
    return chosen;
}

TEST(GpuChoices, AreTheCpusOfAnyScores) {
    cuda_host::reset({});
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    for (const Selection& selection : {Selection{1, 1},
                                       {7, 7},
                                       {8, 2},
                                       {32, 32},
                                       {33, 8},
                                       {64, 8},
                                       {64, 40},
                                       {128, 8},
                                       {255, 9},
                                       {256, 8},
                                       {257, 8},
                                       {300, 70},
                                       {8, 2, 1, 1, true},
                                       {256, 8, 8, 4, true},
                                       {300, 6, 10, 3, true},
                                       {96, 6, 48, 5, false}}) {
        CudaBackend gpu(0);
        const auto cpu = make_cpu_backend(1);
        const std::string which = fmt::format("{} of {} experts in {} of {} groups", selection.choices,
                                              selection.experts, selection.top_groups, selection.groups);
        EXPECT_EQ(chosen_by<float>(gpu, selection), chosen_by<float>(*cpu, selection)) << which;
        EXPECT_EQ(chosen_by<double>(gpu, selection), chosen_by<double>(*cpu, selection)) << which;
    }
    EXPECT_EQ(cuda_host::first_finding(), "");
}

std::vector<double> sums_in_order(u64 seed, i64 experts) {
    constexpr i64 kTokens = 150, kChoices = 3, kObject = 70;
    cuda_host::reset({.seed = seed});
    CudaBackend backend(0);
    const auto stream = backend.make_stream("compute");
    const Shape by_expert{3, experts};
    Tensor probability = backend.allocate({kTokens, experts}, DType::f32);
    Tensor log_sum_exp = backend.allocate({kTokens}, DType::f32);
    Tensor weight = backend.allocate({kTokens, kChoices}, DType::f32);
    Tensor index = backend.allocate({kTokens, kChoices}, DType::int32);
    Tensor counts = backend.allocate(by_expert, DType::int64);
    Tensor balance_counts = backend.allocate(by_expert, DType::int64);
    std::vector<Tensor> sums;
    for (int i = 0; i < 3; ++i) sums.push_back(backend.allocate(by_expert, DType::f64));
    sums.push_back(backend.allocate({3}, DType::f64));
    for (Tensor* one : {&probability, &log_sum_exp, &weight})
        backend.random_fill(*stream, {.random = Philox(5, one->shape().text()), .values = *one});
    stream->synchronize();
    for (i64 i = 0; i < index.elements(); ++i) index.as<i32>()[i] = static_cast<i32>(i * 5 % experts);
    backend.router_sums(*stream, {.probability = probability,
                                  .log_sum_exp = log_sum_exp,
                                  .load_probability = {},
                                  .index = index,
                                  .weight = weight,
                                  .rows_per_object = kObject,
                                  .counted = CountedChoices::most_probable,
                                  .counts = counts,
                                  .balance_counts = balance_counts,
                                  .probability_sum = sums[0],
                                  .weight_sum = sums[1],
                                  .load_sum = sums[2],
                                  .z_sum = sums[3]});
    Tensor entropy = backend.allocate({3}, DType::f64), first_weight = backend.allocate({3}, DType::f64);
    backend.router_confidence(*stream, {.probability = probability,
                                        .weight = weight,
                                        .rows_per_part = kObject,
                                        .entropy_sum = entropy,
                                        .first_weight_sum = first_weight});
    stream->synchronize();
    sums.push_back(std::move(entropy));
    sums.push_back(std::move(first_weight));
    std::vector<double> all;
    for (const Tensor& one : sums) all.insert(all.end(), one.as<double>(), one.as<double>() + one.elements());
    return all;
}

TEST(GpuChoices, SumsOverTokensHaveTheSameBitsInEveryOrder) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    for (const i64 experts : {8, 300}) {
        const std::vector<double> want = sums_in_order(0, experts);
        for (const u64 seed : {1, 2, 3}) EXPECT_EQ(sums_in_order(seed, experts), want) << experts;
    }
    cuda_host::reset({});
}

}  // namespace
}  // namespace moesaic
