// From YAML text to a Config with every mistake listed, and back.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "runtime/config/config.h"
#include "runtime/config/diagnostics.h"

namespace moesaic {

struct LoadedConfig {
    Config config;
    Diagnostics diagnostics;
    std::map<std::string, std::string>
        where;  ///< dotted key -> "file:line" or "--set ...", for the keys that were given
    std::string file;

    /// Adds a mistake in `key`, located where the key was set.
    void complain(const std::string& key, std::string message, std::string hint);
};

/// What a configuration is for. Weights may be of use that no training could have made.
enum class Purpose : std::uint8_t { training, inference };

/// Reads a file, applies `overrides` ("a.b=c") and validates what can be judged without data or ranks.
/// Mistakes are in `diagnostics`; a file that cannot be read at all is one of them.
[[nodiscard]] LoadedConfig load_config(const std::filesystem::path& file,
                                       std::span<const std::string> overrides = {});
/// The same for text that came from elsewhere (a checkpoint); `name` stands in messages instead of a file.
[[nodiscard]] LoadedConfig parse_config(std::string_view text, const std::string& name,
                                        std::span<const std::string> overrides = {},
                                        Purpose purpose = Purpose::training);

/// Checks across fields; needs no data, no ranks.
void validate(LoadedConfig& loaded, Purpose purpose);

/// The resolved configuration; parse_config(to_yaml(c)) gives c again.
[[nodiscard]] std::string to_yaml(const Config& config);
/// A Markdown table of every key: default, what is allowed, help.
[[nodiscard]] std::string config_reference();
/// A Markdown table of the keys that take only some of their values in this version.
[[nodiscard]] std::string version_limits();
/// Dotted key -> value as to_yaml prints it.
[[nodiscard]] std::map<std::string, std::string> flatten(const Config& config);

}  // namespace moesaic
