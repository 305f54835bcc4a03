// The middle of some numbers.
#pragma once

#include <algorithm>
#include <vector>

namespace moesaic {

/// The upper one of the two in the middle where their number is even. There is at least one.
[[nodiscard]] inline double upper_median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace moesaic
