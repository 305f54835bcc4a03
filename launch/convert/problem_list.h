// Many mistakes of one kind in one message.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/error.h"

namespace moesaic {

/// Nothing where there are none; else a UserError: the headline, the first problems, one a line, and how many
/// more there are.
inline void throw_if_any(const std::vector<std::string>& problems, const std::string& headline) {
    constexpr std::size_t kShown = 20;
    if (problems.empty()) return;
    std::string text = headline + ":";
    for (std::size_t i = 0; i < problems.size() && i < kShown; ++i) text += "\n  " + problems[i];
    if (problems.size() > kShown) text += fmt::format("\n  ... and {} more", problems.size() - kShown);
    throw UserError(text);
}

}  // namespace moesaic
