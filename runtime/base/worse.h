// Maxima of errors, by which checks judge.
#pragma once

#include <cmath>

namespace moesaic {

/// The larger of two errors, and NaN where one of them is: std::max keeps or drops it as the order falls.
[[nodiscard]] inline double worse(double a, double b) {
    return std::isnan(a) || a >= b ? a : b;
}

}  // namespace moesaic
