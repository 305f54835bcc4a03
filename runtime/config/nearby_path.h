// Where the files are that a configuration names.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/config/task_config.h"

namespace moesaic {

/// A relative path that leads nowhere from the current folder, but does from the folder of `file` or one of
/// the two above it: there, absolute. Else as it is. So an installed configuration finds the data beside it.
[[nodiscard]] std::string nearby_path(const std::string& path, const std::filesystem::path& file);
/// The same for every path of the section.
void find_data(DataConfig& data, const std::filesystem::path& file);

}  // namespace moesaic
