// Whether a point lies among others.
#pragma once

#include <vector>

namespace moesaic {

/// Whether `at` is a convex combination of `points`, all of one dimension, to 1e-6 of the largest distance
/// along an axis; points on the border are inside, also where all points lie in one plane or line. No points:
/// false. By least squares with weights >= 0 (Lawson and Hanson, Solving Least Squares Problems, chapter 23).
[[nodiscard]] bool in_convex_hull(const std::vector<std::vector<double>>& points,
                                  const std::vector<double>& at);

}  // namespace moesaic
