// Small files that the kernel writes, as text; absent where they cannot be read.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// The whole file without blanks at its ends; empty where it does not exist, cannot be read or is a folder.
/// `root` stands before the absolute `path`: "" is this machine, a folder is a test's picture of one.
[[nodiscard]] std::optional<std::string> read_text_file(const std::string& root, const std::string& path);

/// The same as a whole number; empty also where it holds anything else, such as "max".
[[nodiscard]] std::optional<i64> read_number_file(const std::string& root, const std::string& path);

[[nodiscard]] std::string trimmed(std::string_view text);
[[nodiscard]] std::vector<std::string> lines_of(const std::string& text);
[[nodiscard]] std::vector<std::string> split_text(std::string_view text, char separator);

/// "512 MiB", "1.5 GiB": bytes for a person, three digits.
[[nodiscard]] std::string bytes_text(double bytes);

}  // namespace moesaic
