#include "runtime/config/yaml_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <utility>

namespace moesaic {

void YamlFile::read(const std::string& example, const std::function<void(const YAML::Node& root)>& read) {
    std::ifstream stream(path_, std::ios::binary);
    if (!stream || std::filesystem::is_directory(path_)) {
        diagnostics_.add({path_, "", "cannot be read", fmt::format("give {}, e.g. {}", kind_, example)});
        return;
    }
    const std::string words{std::istreambuf_iterator<char>(stream), {}};
    try {
        read(YAML::Load(words));
    } catch (const YAML::Exception& error) {
        diagnostics_.add({fmt::format("{}:{}", path_, error.mark.line + 1), "", "is not YAML: " + error.msg,
                          "check indentation, colons and quotes on this line"});
    }
    diagnostics_.sort_by_line();
}

void YamlFile::complain(const YAML::Node& node, const std::string& key, std::string message,
                        std::string hint) {
    diagnostics_.add(
        {fmt::format("{}:{}", path_, node.Mark().line + 1), key, std::move(message), std::move(hint)});
}

bool YamlFile::check_keys(const YAML::Node& node, const std::string& section,
                          const std::vector<std::string>& known) {
    if (!node.IsMap()) {
        complain(node, section, "is not a mapping", "write `key: value` lines");
        return false;
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
        const std::string key = yaml_text(entry.first);
        const std::string full = section.empty() ? key : section + "." + key;
        if (!seen.insert(key).second) complain(entry.first, full, "is given twice", "keep one of the two");
        if (std::ranges::find(known, key) != known.end()) continue;
        const std::string near = nearest_name(key, known);
        complain(entry.first, full, fmt::format("is no key of {}", kind_),
                 near.empty() ? fmt::format("known are: {}", fmt::join(known, ", "))
                              : fmt::format("did you mean '{}'?", near));
    }
    return true;
}

std::string yaml_text(const YAML::Node& node) {
    if (node.IsScalar()) return node.Scalar();
    YAML::Emitter emitter;
    emitter.SetSeqFormat(YAML::Flow);
    emitter.SetMapFormat(YAML::Flow);
    emitter << node;
    return emitter.c_str();
}

}  // namespace moesaic
