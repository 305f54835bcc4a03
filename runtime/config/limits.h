// What a field of the configuration may hold.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Inclusive limits of a number.
struct Limits {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
};
inline constexpr Limits kPositive{1, 1e15};
inline constexpr Limits kNotNegative{0, 1e15};
inline constexpr Limits kShare{0, 1};
/// Of a width, a batch, a sequence: far above all use, far below overflow.
inline constexpr Limits kSize{1, 16777216};

/// The words that a text field may hold.
using Choices = std::vector<std::string>;

}  // namespace moesaic
