// What the CPU back end promises beyond right numbers: checks, and honest results for non-finite input.
#include "runtime/backend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace moesaic {
namespace {

template <class Real>
class CpuBackendOf : public ::testing::Test {
  protected:
    static constexpr i64 kColumns = 37;  // neither a multiple of a vector nor less than one

    /// A row of ones but for one element.
    std::vector<Real> row_with(Real odd, std::size_t column) const {
        std::vector<Real> row(kColumns, Real{1});
        row[column] = odd;
        return row;
    }

    static constexpr Real kNan = std::numeric_limits<Real>::quiet_NaN();
    static constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
    const Shape shape{1, kColumns};
    std::unique_ptr<Backend> backend = make_cpu_backend(1);
    std::unique_ptr<Stream> stream = backend->make_stream("compute");
};

using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CpuBackendOf, Reals);

TYPED_TEST(CpuBackendOf, CrossEntropyOfNonFiniteLogitsIsNotFinite) {
    for (const TypeParam odd : {this->kNan, this->kInfinity}) {
        for (const std::size_t column : {0u, 20u, 36u}) {
            const std::vector<TypeParam> logits = this->row_with(odd, column);
            const i32 target = 3;
            double loss = 0, sum = 0;
            this->backend->cross_entropy(*this->stream, {.logits = view_of(logits.data(), this->shape),
                                                         .target = view_of(&target, {1}),
                                                         .loss = view_of(&loss, {1}),
                                                         .log_sum_exp = view_of(&sum, {1})});
            EXPECT_FALSE(std::isfinite(loss)) << odd << " in column " << column;
        }
    }
}

TYPED_TEST(CpuBackendOf, SoftmaxOfNonFiniteLogitsIsNotFinite) {
    for (const TypeParam odd : {this->kNan, this->kInfinity}) {
        std::vector<TypeParam> logits = this->row_with(odd, 36), probability(logits.size());
        TypeParam sum = 0;
        this->backend->row_softmax(*this->stream, {.logits = view_of(logits.data(), this->shape),
                                                   .probability = view_of(probability.data(), this->shape),
                                                   .log_sum_exp = view_of(&sum, {1})});
        EXPECT_FALSE(std::isfinite(probability[0]));
        EXPECT_FALSE(std::isfinite(sum));
    }
}

TYPED_TEST(CpuBackendOf, SoftmaxGivesMinusInfinityNothing) {
    std::vector<TypeParam> logits = this->row_with(-this->kInfinity, 36), probability(logits.size());
    TypeParam sum = 0;
    this->backend->row_softmax(*this->stream, {.logits = view_of(logits.data(), this->shape),
                                               .probability = view_of(probability.data(), this->shape),
                                               .log_sum_exp = view_of(&sum, {1})});
    EXPECT_EQ(probability[36], TypeParam{0});
    EXPECT_NEAR(static_cast<double>(probability[0]), 1.0 / 36, 1e-7);
}

TYPED_TEST(CpuBackendOf, SwigluKeepsNanAndSurvivesLargeGates) {
    const std::vector<TypeParam> x = {this->kNan, TypeParam{2000}, TypeParam{-2000}, this->kInfinity, 1, 1, 1,
                                      1};
    std::vector<TypeParam> y(4);
    this->backend->activation(
        *this->stream,
        {.kind = ActivationKind::swiglu, .x = view_of(x.data(), {1, 8}), .y = view_of(y.data(), {1, 4})});
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], TypeParam{2000});
    EXPECT_NEAR(static_cast<double>(y[2]), 0.0, 1e-30);
    EXPECT_FALSE(std::isfinite(y[3]));
}

TYPED_TEST(CpuBackendOf, UngatedActivationsKeepNanAndSurviveLargeValues) {
    const std::vector<TypeParam> x = {this->kNan, TypeParam{2000}, TypeParam{-2000}, this->kInfinity,
                                      TypeParam{0}};
    const TypeParam slope = 0.5;
    for (const ActivationEntry& entry : kActivations) {
        if (activation_halves(entry.kind) == 2) continue;
        SCOPED_TRACE(entry.name);
        std::vector<TypeParam> y(5);
        const i64 one = 1;
        const bool learnt = entry.kind == ActivationKind::prelu;
        this->backend->activation(*this->stream, {.kind = entry.kind,
                                                  .x = view_of(x.data(), {1, 5}),
                                                  .y = view_of(y.data(), {1, 5}),
                                                  .slope = learnt ? view_of(&slope, {1}) : ConstTensorView(),
                                                  .rows_per_group = learnt ? std::span<const i64>(&one, 1)
                                                                           : std::span<const i64>()});
        EXPECT_TRUE(std::isnan(y[0]));
        EXPECT_EQ(y[1], TypeParam{2000});
        EXPECT_EQ(y[2], learnt ? TypeParam{-1000} : TypeParam{0});
        EXPECT_EQ(y[3], this->kInfinity);
        EXPECT_EQ(y[4], TypeParam{0});
    }
}

/// Where 1 + erf(x / sqrt 2) has lost all its digits.
TYPED_TEST(CpuBackendOf, GeluKeepsTheDigitsOfItsTail) {
    for (const double value : {-1.0, -3.0, -6.0, -9.0}) {
        const auto x = static_cast<TypeParam>(value);
        TypeParam y = 0;
        this->backend->activation(
            *this->stream,
            {.kind = ActivationKind::gelu, .x = view_of(&x, {1, 1}), .y = view_of(&y, {1, 1})});
        const double want = value * std::erfc(-value / std::sqrt(2.0)) / 2;
        const double tolerance = sizeof(TypeParam) == 4 ? 3e-6 : 1e-14;
        EXPECT_NEAR(static_cast<double>(y), want, tolerance * std::abs(want)) << value;
    }
}

TYPED_TEST(CpuBackendOf, ClampKeepsNan) {
    std::vector<TypeParam> y = this->row_with(this->kNan, 2);
    this->backend->clamp(*this->stream, 0.5, view_of(y.data(), this->shape));
    EXPECT_TRUE(std::isnan(y[2]));
    EXPECT_EQ(y[0], TypeParam{0.5});
}

TYPED_TEST(CpuBackendOf, NormOfNanIsNan) {
    std::vector<TypeParam> x = this->row_with(this->kNan, 33), y(x.size());
    TypeParam inverse = 0;
    this->backend->rms_norm(*this->stream, {.x = view_of(x.data(), this->shape),
                                            .weight = view_of(x.data(), {this->kColumns}),
                                            .y = view_of(y.data(), this->shape),
                                            .inverse_rms = view_of(&inverse, {1, 1})});
    EXPECT_TRUE(std::isnan(y[0]));
}

TEST(CpuBackend, NamesTheOperandOfAWrongShape) {
    const auto backend = make_cpu_backend(1);
    const auto stream = backend->make_stream("compute");
    std::vector<float> x(12), y(12);
    const auto apply = [&](TensorView y_view) {
        backend->activation(*stream,
                            {.kind = ActivationKind::swiglu, .x = view_of(x.data(), {2, 6}), .y = y_view});
    };
    EXPECT_DEATH(apply(view_of(y.data(), {2, 4})), "activation x is \\[2,6\\], not \\[2,8\\]");
    std::vector<double> wide(6);
    EXPECT_DEATH(apply(view_of(wide.data(), {2, 3})), "activation y holds f64, not f32");
    EXPECT_DEATH(backend->copy(*stream, view_of(x.data(), {12}), view_of(y.data(), {11})),
                 "copy \\[12\\] to \\[11\\]");
}

TEST(CpuBackend, AdamWTakesPyTorchsFirstStep) {
    // From zero moments the first step is -lr * sign(g) apart from eps, after decay by 1 - lr * weight_decay.
    std::vector<double> parameter = {2.0, -3.0}, first(2), second(2);
    const std::vector<double> gradient = {0.5, -4.0};
    const auto backend = make_cpu_backend(1);
    const auto stream = backend->make_stream("compute");
    backend->adamw(*stream, {.parameter = view_of(parameter.data(), {2}),
                             .first_moment = view_of(first.data(), {2}),
                             .second_moment = view_of(second.data(), {2}),
                             .gradient = view_of(gradient.data(), {2}),
                             .lr = 0.1,
                             .beta1 = 0.9,
                             .beta2 = 0.999,
                             .eps = 0,
                             .weight_decay = 0.01,
                             .step = 1});
    EXPECT_NEAR(parameter[0], 2.0 * 0.999 - 0.1, 1e-14);
    EXPECT_NEAR(parameter[1], -3.0 * 0.999 + 0.1, 1e-14);
    EXPECT_NEAR(first[1], -0.4, 1e-15);
    EXPECT_NEAR(second[1], 0.016, 1e-15);
}

}  // namespace
}  // namespace moesaic
