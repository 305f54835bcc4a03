// Programs on the search path, and what they say about themselves.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace moesaic {

/// The file that `name` means on `path` (as $PATH, colons between folders); empty where there is none.
[[nodiscard]] std::optional<std::string> find_program(const std::string& name, const std::string& path);

/// $PATH, empty where it is not set.
[[nodiscard]] std::string search_path();

/// What the program prints (first 64 KiB of both its outputs), or empty when it cannot be started or does not
/// end within `timeout_seconds`; then it is killed.
[[nodiscard]] std::optional<std::string> output_of(const std::vector<std::string>& words,
                                                   double timeout_seconds);

/// The first number of the form 1.2 or 1.2.3 in a text, e.g. of `--version`; empty where there is none.
[[nodiscard]] std::string version_in(const std::string& text);

}  // namespace moesaic
