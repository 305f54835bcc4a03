// What becomes of steps whose loss or gradient is not finite or far larger than usual.
#include "launch/step_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace moesaic {
namespace {

using testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TrainConfig policy(const std::string& nonfinite, i64 most = 3) {
    TrainConfig config;
    config.nonfinite = nonfinite;
    config.most_skips = most;
    return config;
}

TEST(StepPolicy, StopsByDefault) {
    StepPolicy steps{TrainConfig()};
    EXPECT_EQ(steps.judge(1, 2, 1).verdict, StepVerdict::take);
    const StepJudgement judgement = steps.judge(2, -kNan, 1);
    EXPECT_EQ(judgement.verdict, StepVerdict::stop);
    EXPECT_EQ(judgement.kind, "nonfinite");
    EXPECT_EQ(judgement.what, "the loss is nan and the gradient's norm 1");
    EXPECT_EQ(steps.judge(2, 2, kInfinity).verdict, StepVerdict::stop);
}

TEST(StepPolicy, SkipsUntilThereAreTooManyOnEnd) {
    StepPolicy steps(policy("skip"));
    for (i64 step = 1; step <= 3; ++step) EXPECT_EQ(steps.judge(step, 2, kNan).verdict, StepVerdict::skip);
    EXPECT_EQ(steps.judge(4, 2, 1).verdict, StepVerdict::take);
    EXPECT_EQ(steps.skipped(), 3) << "the optimizer's own count of updates";
    for (i64 step = 5; step <= 7; ++step) EXPECT_EQ(steps.judge(step, kNan, 1).verdict, StepVerdict::skip);
    const StepJudgement last = steps.judge(8, kNan, 1);
    EXPECT_EQ(last.verdict, StepVerdict::stop);
    EXPECT_THAT(last.what, HasSubstr("after 3 updates were left out on end (train.most_skips)"));
}

TEST(StepPolicy, ASpikeIsMeasuredByTheMedianOfStepsThatWereTaken) {
    TrainConfig config;
    config.spike = {.off = false, .threshold = 4, .steps = 5, .policy = "skip"};
    StepPolicy steps(config);
    for (const double norm : {1.0, 50.0, 1.2, 0.8, 1.1})
        EXPECT_EQ(steps.judge(1, 2, norm).verdict, StepVerdict::take);
    EXPECT_EQ(steps.judge(6, 2, 4.3).verdict, StepVerdict::take) << "the median is 1.1";
    // 50, 1.2, 0.8, 1.1, 4.3: median 1.2
    const StepJudgement spike = steps.judge(7, 2, 6);
    EXPECT_EQ(spike.verdict, StepVerdict::skip);
    EXPECT_EQ(spike.kind, "gradient_spike");
    EXPECT_DOUBLE_EQ(spike.value, 5);
    EXPECT_EQ(steps.judge(8, 2, 6).verdict, StepVerdict::skip) << "what was left out does not count as usual";
}

TEST(StepPolicy, GoesOnAfterAResumptionAsItWouldHaveWithout) {
    TrainConfig config = policy("skip");
    config.spike = {.off = false, .threshold = 4, .steps = 3, .policy = "skip"};
    StepPolicy whole(config), before(config), after(config);
    for (StepPolicy* steps : {&whole, &before}) {
        for (const double norm : {1.0, 2.0, kNan, 3.0, kNan}) (void)steps->judge(1, 2, norm);
    }
    after.begin(5, before.observers());
    EXPECT_EQ(after.skipped(), 2);
    for (const double norm : {kNan, kNan, 9.0, 2.0, kNan}) {
        EXPECT_EQ(after.judge(6, 2, norm).verdict, whole.judge(6, 2, norm).verdict) << norm;
        EXPECT_EQ(after.skipped(), whole.skipped());
    }
    StepPolicy fresh(config);
    EXPECT_TRUE(fresh.observers().empty()) << "nothing to remember, nothing in the checkpoint";
}

/// As the trainer does: a new policy for every attempt, from the checkpoint of step 4.
TEST(StepPolicy, ReturnsFirstRepeatAndThenLeaveOutBatches) {
    const TrainConfig config = policy("rollback");
    Returns returns;
    i64 expected_shift[] = {0, 0, 3, 6};
    for (const i64 shift : expected_shift) {
        StepPolicy steps(config, returns);
        steps.begin(4, {});
        EXPECT_EQ(steps.batch_shift(), shift);
        for (const i64 step : {5, 6}) EXPECT_EQ(steps.judge(step, 2, 1).verdict, StepVerdict::take);
        EXPECT_EQ(steps.judge(7, kNan, 1).verdict, shift == 6 ? StepVerdict::stop : StepVerdict::rollback);
        returns = steps.returns();
    }
}

TEST(StepPolicy, ReturnsAreForgottenBeyondTheStepThatFailed) {
    StepPolicy steps(policy("rollback"), {.failed_step = 7, .count = 2, .batch_shift = 0});
    steps.begin(4, {});
    EXPECT_EQ(steps.batch_shift(), 3);
    for (const i64 step : {5, 6, 7, 8}) EXPECT_EQ(steps.judge(step, 2, 1).verdict, StepVerdict::take);
    EXPECT_EQ(steps.returns().count, 0);
    EXPECT_EQ(steps.judge(9, kNan, 1).verdict, StepVerdict::rollback);
    StepPolicy sooner(policy("rollback"), steps.returns());
    sooner.begin(4, {});
    EXPECT_EQ(sooner.batch_shift(), 3) << "from before the shift: what was left out stays out";
    StepPolicy again(policy("rollback"), steps.returns());
    again.begin(8, {{"step_policy", {0, 3, 0}}});
    EXPECT_EQ(again.batch_shift(), 3) << "what the checkpoint says, and the same batches once more";
}

}  // namespace
}  // namespace moesaic
