// The learning rate at the steps where its formula can be read off.
#include "runtime/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moesaic {
namespace {

TEST(Schedule, WarmsUpInALine) {
    for (const ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::wsd}) {
        const Schedule schedule{kind, 2.0, 50, 0.1, 300};
        EXPECT_DOUBLE_EQ(learning_rate(schedule, 1), 2.0 / 50);
        EXPECT_DOUBLE_EQ(learning_rate(schedule, 25), 1.0);
        EXPECT_DOUBLE_EQ(learning_rate(schedule, 50), 2.0);
    }
}

TEST(Schedule, CosineEndsAtTheFloor) {
    const Schedule schedule{ScheduleKind::cosine, 2.0, 50, 0.1, 250};
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 150), 2.0 * (0.1 + 0.9 * 0.5));
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 100), 2.0 * (0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5))));
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 250), 0.2);
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 1000), 0.2);
}

TEST(Schedule, ConstantStays) {
    const Schedule schedule{ScheduleKind::constant, 2.0, 0, 0.1, 300};
    EXPECT_EQ(learning_rate(schedule, 1), 2.0);
    EXPECT_EQ(learning_rate(schedule, 300), 2.0);
}

TEST(Schedule, WsdFallsOverTheLastFifth) {
    const Schedule schedule{ScheduleKind::wsd, 2.0, 50, 0.1, 300};
    EXPECT_EQ(learning_rate(schedule, 51), 2.0);
    EXPECT_EQ(learning_rate(schedule, 240), 2.0);
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 241), 2.0 * (1 - 0.9 / 60));
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 270), 2.0 * 0.55);
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 300), 0.2);
}

TEST(Schedule, AWarmUpMayFillTheRun) {
    for (const ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::wsd}) {
        const Schedule schedule{kind, 1.0, 10, 0.1, 10};
        EXPECT_EQ(learning_rate(schedule, 10), 1.0);
        EXPECT_EQ(learning_rate({kind, 1.0, 20, 0.1, 10}, 10), 0.5);
        EXPECT_EQ(learning_rate({kind, 1.0, 0, 0.5, 1}, 1), kind == ScheduleKind::constant ? 1.0 : 0.5);
    }
}

}  // namespace
}  // namespace moesaic
