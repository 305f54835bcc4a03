// When an alarm speaks: once, cleared with some distance, again when it comes back.
#include "runtime/metrics/alarm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace moesaic {
namespace {

using enum AlarmChange;

std::vector<AlarmChange> changes(const AlarmRule& rule, const std::vector<double>& values) {
    AlarmState state;
    std::vector<AlarmChange> all;
    for (const double value : values) all.push_back(state.update(value, rule));
    return all;
}

TEST(Alarm, SpeaksOnceAndAgainAfterItWasCleared) {
    const AlarmRule rule{.threshold = 5, .healthy = 1};  // good: at most 4.6
    EXPECT_EQ(changes(rule, {4, 5, 6, 5, 4.6, 4, 5.5, 1}),
              (std::vector{none, raised, none, none, cleared, none, raised, cleared}));
}

TEST(Alarm, AValueBetweenGoodAndAlarmingChangesNothing) {
    const AlarmRule rule{.threshold = 5, .healthy = 1};
    EXPECT_EQ(changes(rule, {4.8, 5, 4.8, 5, 4.7, 4.61}),
              (std::vector{none, raised, none, none, none, none}));
}

TEST(Alarm, CountsStepsOnEndBothWays) {
    const AlarmRule rule{.threshold = 5, .steps = 3, .healthy = 1};
    EXPECT_EQ(changes(rule, {6, 6, 4, 6, 6, 6, 6, 1, 1, 6, 1, 1, 1, 6}),
              (std::vector{none, none, none, none, none, raised, none, none, none, none, none, none, cleared,
                           none}));
}

TEST(Alarm, OfSmallValues) {
    const AlarmRule rule{.threshold = 0.2, .below = true, .healthy = 1};  // good: at least 0.28
    EXPECT_EQ(changes(rule, {0.25, 0.2, 0.25, 0.1, 0.29, 0.25, 0}),
              (std::vector{none, raised, none, none, cleared, none, raised}));
}

/// A threshold at the value of health itself: what raises it does not clear it as well.
TEST(Alarm, WithAThresholdOfPerfection) {
    EXPECT_EQ(changes({.threshold = 1, .healthy = 1}, {1, 1, 1, 0.9}),
              (std::vector{raised, none, none, cleared}));
}

TEST(Alarm, NotANumberIsNeitherGoodNorAlarming) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_EQ(changes({.threshold = 5}, {nan, 6, nan, 1}), (std::vector{none, raised, none, cleared}));
}

}  // namespace
}  // namespace moesaic
