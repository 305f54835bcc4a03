// The learning rate as a pure function of the step.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

enum class ScheduleKind : std::uint8_t {
    constant,
    cosine,  ///< half a cosine from the peak to the floor
    wsd,     ///< warm-up, stable, decay: the peak, then over the last fifth of the steps a line to the floor
};

struct Schedule {
    ScheduleKind kind = ScheduleKind::cosine;
    double lr = 1e-3;    ///< the peak
    i64 warmup = 0;      ///< steps of a line from 0 to the peak, whichever the kind
    double floor = 0.1;  ///< the last step's share of the peak
    i64 steps = 1;
};

/// Of step 1, 2, ... `steps`; beyond the last step the rate stays as it is.
[[nodiscard]] double learning_rate(const Schedule& schedule, i64 step);

}  // namespace moesaic
