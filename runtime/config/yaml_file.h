// YAML files beside the configuration (studies, clusters): what cannot be read, and keys that nobody knows.
#pragma once

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "runtime/config/diagnostics.h"

namespace moesaic {

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

/// A value as it would stand after `--set key=`.
[[nodiscard]] std::string yaml_text(const YAML::Node& node);

}  // namespace moesaic
