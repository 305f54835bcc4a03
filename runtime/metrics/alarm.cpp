#include "runtime/metrics/alarm.h"

namespace moesaic {

AlarmChange AlarmState::update(double value, const AlarmRule& rule) {
    constexpr double kHysteresis = 0.1;
    const double good = rule.threshold + kHysteresis * (rule.healthy - rule.threshold);
    const bool alarming = rule.below ? value <= rule.threshold : value >= rule.threshold;
    const bool well = rule.below ? value >= good : value <= good;
    steps_ = (raised_ ? well && !alarming : alarming) ? steps_ + 1 : 0;
    if (steps_ < rule.steps) return AlarmChange::none;
    steps_ = 0;
    raised_ = !raised_;
    return raised_ ? AlarmChange::raised : AlarmChange::cleared;
}

}  // namespace moesaic
