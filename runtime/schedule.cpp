#include "runtime/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// How much of the way from step `begin` to step `end` is done, in [0, 1].
double progress(i64 step, i64 begin, i64 end) {
    if (step >= end) return 1;
    return step <= begin ? 0 : static_cast<double>(step - begin) / static_cast<double>(end - begin);
}

}  // namespace

double learning_rate(const Schedule& schedule, i64 step) {
    MOESAIC_ASSERT(step >= 1, "steps count from 1, not {}", step);
    const auto& [kind, lr, warmup, floor, steps] = schedule;
    if (step <= warmup) return lr * static_cast<double>(step) / static_cast<double>(warmup);
    switch (kind) {
        case ScheduleKind::constant:
            return lr;
        case ScheduleKind::cosine:
            return lr * (floor + (1 - floor) * 0.5 *
                                     (1 + std::cos(std::numbers::pi * progress(step, warmup, steps))));
        case ScheduleKind::wsd:
            return lr * (1 - (1 - floor) * progress(step, std::max(warmup, steps - steps / 5), steps));
    }
    return lr;
}

}  // namespace moesaic
