// How deep JSON nests, before anything is built of it.
#pragma once

#include <string_view>

namespace moesaic {

/// Lists and objects within each other, in a text that may be JSON. To read, copy or print a value takes
/// stack for each of them, so that whoever reads other people's lines asks first.
[[nodiscard]] int json_depth(std::string_view text);

/// What records of metrics, studies and claims never reach.
inline constexpr int kDeepestRecord = 16;

}  // namespace moesaic
