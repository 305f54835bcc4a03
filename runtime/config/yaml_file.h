// YAML as others write it: texts that would cost more than their size, files beside the configuration
// (studies, clusters) that cannot be read, and keys that nobody knows.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/config/diagnostics.h"

namespace moesaic {

/// Bytes; more is no file of this kind.
inline constexpr std::uintmax_t kLargestYamlFile = 1 << 20;

/// One such file, read section by section; mistakes go to `diagnostics` with its name and line.
class YamlFile {
  public:
    /// `kind` with its article, as in "is no key of a study".
    YamlFile(std::string path, std::string kind, Diagnostics& diagnostics)
        : path_(std::move(path)), kind_(std::move(kind)), diagnostics_(diagnostics) {}

    /// Calls `read` with the root, and sorts what was complained about. `example`: a file of this kind.
    void read(const std::string& example, const std::function<void(const YAML::Node& root)>& read);
    void complain(const YAML::Node& node, const std::string& key, std::string message, std::string hint);
    /// False where `node` is no mapping; keys that are not known, or given twice, are complained about.
    [[nodiscard]] bool check_keys(const YAML::Node& node, const std::string& section,
                                  const std::vector<std::string>& known);

  private:
    std::string path_, kind_;
    Diagnostics& diagnostics_;
};

/// The document of a text, or nothing where there is none. Throws YAML::Exception, also where there are
/// several, and where mappings and lists nest deeper than ours do or anchors make a small text endless:
/// whoever walks the nodes comes to an end.
[[nodiscard]] std::optional<YAML::Node> load_yaml(const std::string& text);
/// What load_yaml threw, as a mistake in `file`.
[[nodiscard]] Diagnostic yaml_mistake(const std::string& file, const YAML::Exception& error);

/// A value as it would stand after `--set key=`.
[[nodiscard]] std::string yaml_text(const YAML::Node& node);

}  // namespace moesaic
