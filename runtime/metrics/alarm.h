// When an alarm is raised and when it is cleared again.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

struct AlarmRule {
    double threshold = 0;
    bool below = false;  ///< alarming are values of at most the threshold, else of at least
    i64 steps = 1;       ///< so many values on end raise it, and as many good ones clear it
    double healthy = 0;  ///< what all is well at; a value is good a tenth of the way from threshold to here
};

enum class AlarmChange : std::uint8_t { none, raised, cleared };

/// The history of one watched value. It speaks when it is raised, and not again before it was cleared. Values
/// between good and alarming change nothing; one that is not a number neither.
class AlarmState {
  public:
    AlarmState() = default;
    /// As an earlier one has left it.
    AlarmState(bool raised, i64 steps) : raised_(raised), steps_(steps) {}
    AlarmChange update(double value, const AlarmRule& rule);
    [[nodiscard]] bool raised() const { return raised_; }
    [[nodiscard]] i64 steps() const { return steps_; }

  private:
    bool raised_ = false;
    i64 steps_ = 0;  // on end that call for the other state
};

}  // namespace moesaic
