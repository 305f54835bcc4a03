// Sums of gradients over micro-batches: folding, and that their order does not show after rounding.
#include "runtime/parameter_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/base/philox.h"

namespace moesaic {
namespace {

constexpr i64 kElements = 5000;

std::vector<float> completed(const std::vector<int>& order) {
    const auto backend = make_cpu_backend(2);
    const auto stream = backend->make_stream("compute");
    ParameterStore store(*backend, DType::f32);
    Parameter parameter;
    parameter.name = "weight";
    parameter.shape = {kElements};
    store.declare(parameter);
    store.end_segment();
    store.allocate(*stream, 1);
    float* const gradient = store.gradients(Placement::replicated).as<float>();
    for (const int batch : order) {
        const Philox random(7, "batch " + std::to_string(batch));
        for (i64 i = 0; i < kElements; ++i) {
            gradient[i] += static_cast<float>(random.normal(static_cast<u64>(i)));
        }
        store.fold_segment(*stream, 0);
        EXPECT_EQ(gradient[kElements - 1], 0.0F);
    }
    store.complete_gradients(*stream);
    return {gradient, gradient + kElements};
}

TEST(ParameterStore, SumsOfMicroBatchesDoNotDependOnTheirOrder) {
    const std::vector<float> ascending = completed({0, 1, 2, 3, 4, 5, 6, 7});
    EXPECT_EQ(ascending, completed({7, 2, 5, 0, 4, 1, 6, 3}));
    EXPECT_NE(ascending, completed({0, 1, 2, 3, 4, 5, 6, 6}));
}

/// One element of three micro-batches, in this order; a part of 0 is left out.
double sum_of(const std::vector<double>& parts, bool exactly) {
    const auto backend = make_cpu_backend(1);
    const auto stream = backend->make_stream("compute");
    ParameterStore store(*backend, DType::f64);
    Parameter parameter;
    parameter.name = "weight";
    parameter.shape = {1};
    const Weight weight = store.declare(parameter);
    store.end_segment();
    if (exactly) store.sum_exactly(std::ssize(parts));
    store.allocate(*stream, 1);
    for (const double part : parts) {
        weight.grad().as<double>()[0] = part;
        weight.fold_rows(*stream, 0, 1);
    }
    return weight.sum().as<double>()[0];
}

TEST(ParameterStore, ExactSumsDoNotDependOnTheirOrderAtAll) {
    const double small = 0x1.1p-43;
    EXPECT_NE(sum_of({64, small, -64}, false), sum_of({64, -64, small}, false));
    EXPECT_EQ(sum_of({64, small, -64}, true), sum_of({64, -64, small}, true));
    EXPECT_EQ(sum_of({64, small, -64}, true), 0x1p-43);
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    EXPECT_EQ(sum_of({86, 0, -86}, true), kInfinity);  // more than 256 / 3
    EXPECT_TRUE(std::isnan(sum_of({std::nan(""), 86, 1}, true)));
    EXPECT_TRUE(std::isnan(sum_of({1, 86, -kInfinity}, true)));
}

/// Large parameters are filled by several threads.
TEST(ParameterStore, InitialValuesAreFunctionsOfTheirPlaces) {
    constexpr i64 kMany = (i64{1} << 20) + 5;
    const auto backend = make_cpu_backend(1);
    const auto stream = backend->make_stream("compute");
    ParameterStore store(*backend, DType::f32);
    Parameter parameter;
    parameter.name = "weight";
    parameter.shape = {kMany};
    parameter.init_std = 0.5;
    parameter.init_constant = 2;
    const Weight weight = store.declare(parameter);
    store.end_segment();
    store.allocate(*stream, 3);
    const float* const values = weight.value().as<float>();
    const Philox random(3, "weight");
    for (i64 i = 0; i < kMany; ++i)
        ASSERT_EQ(values[i], static_cast<float>(2 + 0.5 * random.normal(static_cast<u64>(i)))) << i;
}

TEST(ParameterStore, ZeroGradientsForgetsTheSums) {
    const auto backend = make_cpu_backend(1);
    const auto stream = backend->make_stream("compute");
    ParameterStore store(*backend, DType::f64);
    Parameter parameter;
    parameter.name = "weight";
    parameter.shape = {3};
    const Weight weight = store.declare(parameter);
    store.end_segment();
    store.allocate(*stream, 1);
    weight.grad().as<double>()[1] = 2;
    weight.fold_rows(*stream, 1, 1);
    EXPECT_EQ(store.sums(Placement::replicated).as<double>()[1], 2.0);
    store.zero_gradients(*stream);
    store.complete_gradients(*stream);
    EXPECT_EQ(weight.grad().as<double>()[1], 0.0);
}

/// Two weights that start their sums themselves, before, between and behind others, in two segments.
TEST(ParameterStore, ASumThatNoBackwardStartedIsZeroBeforeItIsRead) {
    const auto backend = make_cpu_backend(1);
    const auto stream = backend->make_stream("compute");
    ParameterStore store(*backend, DType::f32);
    const auto declare = [&](const char* name) {
        Parameter parameter;
        parameter.name = name;
        parameter.shape = {2};
        parameter.placement = Placement::expert;
        parameter.folds_itself = true;
        return store.declare(parameter);
    };
    declare("a");
    Weight first = declare("b");
    declare("c");
    store.starts_sum(first);
    store.end_segment();
    Weight second = declare("d");
    store.starts_sum(second);
    declare("e");
    store.end_segment();
    store.allocate(*stream, 1);
    const auto sums = [&] {
        const double* const all = store.sums(Placement::expert).as<double>();
        return std::vector<double>(all, all + 10);
    };
    double* const all = store.sums(Placement::expert).as<double>();
    std::fill_n(all, 10, 7.0);
    store.zero_gradients(*stream);
    EXPECT_EQ(sums(), (std::vector<double>{0, 0, 7, 7, 0, 0, 7, 7, 0, 0}));
    EXPECT_TRUE(first.start_sum());
    EXPECT_FALSE(first.start_sum()) << "once";
    store.fold_segment(*stream, 0);
    EXPECT_EQ(sums(), (std::vector<double>{0, 0, 7, 7, 0, 0, 7, 7, 0, 0})) << "it was started";
    store.fold_segment(*stream, 1);
    EXPECT_EQ(sums(), (std::vector<double>{0, 0, 7, 7, 0, 0, 0, 0, 0, 0}));
    EXPECT_FALSE(second.start_sum());
    store.zero_gradients(*stream);
    first.clear_sum(*stream);
    EXPECT_EQ(sums(), std::vector<double>(10, 0.0));
    EXPECT_FALSE(first.start_sum());
    float* const grads = store.gradients(Placement::expert).as<float>();
    std::fill_n(all, 10, 7.0);
    std::fill_n(grads, 10, 3.0F);
    store.zero_gradients(*stream);
    first.clear_grad(*stream);
    EXPECT_EQ(std::vector<float>(grads, grads + 10), (std::vector<float>{0, 0, 0, 0, 0, 0, 3, 3, 0, 0}));
    grads[2] = 1;
    first.clear_grad(*stream);
    EXPECT_EQ(grads[2], 1) << "once";
    store.complete_gradients(*stream);
    EXPECT_EQ(sums(), (std::vector<double>{0, 0, 1, 0, 0, 0, 0, 0, 0, 0})) << "old gradients are not added";
}

/// A replicated weight, and two of experts that start their sums themselves, of one element each.
class SumsOnce : public testing::Test {
  protected:
    void SetUp() override {
        const auto declare = [&](const char* name, Placement placement) {
            Parameter parameter;
            parameter.name = name;
            parameter.shape = {2};
            parameter.placement = placement;
            parameter.folds_itself = placement == Placement::expert;
            return store_.declare(parameter);
        };
        plain_ = declare("plain", Placement::replicated);
        for (Weight* const expert : {&first_, &second_}) {
            *expert = declare(expert == &first_ ? "first" : "second", Placement::expert);
            store_.starts_sum(*expert);
        }
        store_.end_segment();
        store_.sum_once();
        store_.allocate(*stream_, 1);
        for (const Placement placement : {Placement::replicated, Placement::expert})
            std::fill_n(store_.gradients(placement).as<float>(), store_.elements(placement), 7.0F);
        store_.zero_gradients(*stream_);
    }
    static std::vector<float> values(ConstTensorView view) {
        return {view.as<float>(), view.as<float>() + 2};
    }

    std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
    std::unique_ptr<Stream> stream_ = backend_->make_stream("compute");
    ParameterStore store_{*backend_, DType::f32};
    Weight plain_, first_, second_;
};

TEST_F(SumsOnce, AreTheGradientsAndTakeNoMemory) {
    EXPECT_EQ(plain_.sum().data, plain_.grad().data);
    EXPECT_EQ(first_.sum().dtype, DType::f32);
    const MemoryByUse& memory = backend_->pool().peak_by_use();
    EXPECT_EQ(memory[static_cast<std::size_t>(MemoryUse::gradient_sums)], 0);
    EXPECT_GT(memory[static_cast<std::size_t>(MemoryUse::gradients)], 0);
}

TEST_F(SumsOnce, KeepWhatABackwardAdded) {
    const std::vector<float> zero{0, 0}, three{3, 4};
    EXPECT_EQ(values(plain_.grad()), zero);
    plain_.grad().as<float>()[0] = 3;
    plain_.grad().as<float>()[1] = -0.0F;
    EXPECT_TRUE(first_.start_sum());
    std::copy_n(three.data(), 2, first_.sum().as<float>());
    first_.clear_grad(*stream_);
    EXPECT_EQ(values(first_.grad()), three) << "it was started";
    store_.fold_segment(*stream_, 0);
    EXPECT_EQ(values(second_.grad()), zero) << "nobody started it";
    first_.fold_rows(*stream_, 0, 1);
    store_.complete_gradients(*stream_);
    EXPECT_EQ(values(first_.grad()), three);
    EXPECT_EQ(values(plain_.grad()), (std::vector<float>{3, 0}));
    EXPECT_FALSE(std::signbit(plain_.grad().as<float>()[1])) << "a sum from zero has no -0";
    store_.zero_gradients(*stream_);
    EXPECT_TRUE(first_.start_sum()) << "once a step";
    EXPECT_EQ(values(plain_.grad()), zero);
    first_.clear_sum(*stream_);
    store_.zero_gradients(*stream_);
    first_.clear_grad(*stream_);
    EXPECT_EQ(values(first_.grad()), zero);
    EXPECT_FALSE(first_.start_sum()) << "cleared, it can only be added to";
}

TEST_F(SumsOnce, AreOfModelsWithoutExpertsToo) {
    ParameterStore dense{*backend_, DType::f32};
    Parameter parameter;
    parameter.name = "plain";
    parameter.shape = {2};
    const Weight plain = dense.declare(parameter);
    dense.end_segment();
    dense.sum_once();
    dense.allocate(*stream_, 1);
    dense.zero_gradients(*stream_);
    plain.grad().as<float>()[0] = 3;
    dense.complete_gradients(*stream_);
    EXPECT_EQ(values(plain.grad()), (std::vector<float>{3, 0}));
}

TEST_F(SumsOnce, AreOfOneMicroBatch) {
    store_.fold_segment(*stream_, 0);
    EXPECT_DEATH(store_.fold_segment(*stream_, 0), "a second micro-batch of segment 0");
    store_.zero_gradients(*stream_);
    store_.fold_segment(*stream_, 0);
    EXPECT_DEATH(store_.sum_exactly(1), "exact sums");
}

}  // namespace
}  // namespace moesaic
