#include "runtime/config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "runtime/config/nearby_path.h"
#include "runtime/config/yaml_file.h"

namespace moesaic {

namespace {

constexpr std::size_t kDeepestKey = 16;  // of --set; the structs of config.h are less deep

std::string shown(const YAML::Node& node) {
    if (node.IsMap()) return "a mapping";
    if (node.IsSequence()) return "a list";
    if (node.IsNull()) return "nothing";
    const std::string& text = node.Scalar();
    return "'" + (text.size() > 60 ? text.substr(0, 57) + "..." : text) + "'";
}

std::string joined(const Choices& choices) {
    return fmt::format("{}", fmt::join(choices, ", "));
}

std::string allowed(const Limits& limits) {
    if (limits.high >= 1e15) return fmt::format("at least {}", limits.low);
    return fmt::format("between {} and {}", limits.low, limits.high);
}

/// Reads one mapping into one struct; a visitor of config.h.
class SectionReader {
  public:
    SectionReader(const YAML::Node& node, std::string prefix, LoadedConfig& loaded, std::string override_text)
        : node_(node), prefix_(std::move(prefix)), loaded_(loaded), override_(std::move(override_text)) {}

    template <class Section>
    void read(Section& section) {
        if (node_.IsNull()) return;
        if (!node_.IsMap()) {
            complain(prefix_.empty() ? "" : prefix_.substr(0, prefix_.size() - 1), node_,
                     shown(node_) + " is not a mapping", "write `key: value` lines, indented below it");
            return;
        }
        section.fields(*this);
        report_unknown();
    }

    template <class Section>
    void section(const char* name, Section& section) {
        const YAML::Node child = take(name);
        YAML::Node mapping = child;
        if constexpr (requires { section.kind; }) {  // "router: switch" is "router: {kind: switch}"
            if (child && child.IsScalar()) mapping.reset(YAML::Node()), mapping["kind"] = child;
        }
        if (child) SectionReader(mapping, prefix_ + name + ".", loaded_, override_).read(section);
    }
    template <class Section>
    void section_or_word(const char* name, Section& section, bool& is_word, const char* word, const char*) {
        const YAML::Node child = take(name);
        if (!child) return;
        is_word = child.IsScalar() && child.Scalar() == word;
        if (is_word) return;
        if (child.IsScalar()) {
            complain(prefix_ + name, child, shown(child) + " is unknown",
                     fmt::format("{} or a mapping", word));
            is_word = true;  // one mistake, one message
            return;
        }
        SectionReader(child, prefix_ + name + ".", loaded_, override_).read(section);
    }
    /// A list of mappings replaces the sections; --set name.2.key=value changes one that is there.
    template <class Section>
    void sections(const char* name, std::vector<Section>& sections, const char*) {
        const YAML::Node child = take(name);
        if (!child) return;
        const std::string prefix = prefix_ + name;
        if (child.IsMap() && !override_.empty()) {
            read_one_of(child, prefix, sections);
            return;
        }
        if (!child.IsSequence()) {
            complain(prefix, child, shown(child) + " is not a list",
                     "a list of mappings, e.g. [{path: a.txt, weight: 2}, {path: b.txt}]");
            return;
        }
        sections.assign(child.size(), {});
        for (std::size_t i = 0; i < sections.size(); ++i) {
            const std::string key = fmt::format("{}.{}", prefix, i);
            loaded_.where[key] = where(child[i]);
            SectionReader(child[i], key + ".", loaded_, override_).read(sections[i]);
        }
    }
    void value_unless(bool, const char* name, std::string& field, const char* help) {
        value(name, field, help);
    }
    void value(const char* name, i64& field, const Limits& limits, const char*) {
        if (const YAML::Node child = take(name)) number(name, child, field, limits, "a whole number");
    }
    void value(const char* name, double& field, const Limits& limits, const char*) {
        if (const YAML::Node child = take(name)) number(name, child, field, limits, "a number");
    }
    void value(const char* name, bool& field, const char*) {
        if (const YAML::Node child = take(name)) truth(name, child, field);
    }
    void value(const char* name, std::string& field, const char*) {
        const YAML::Node child = take(name);
        if (!child) return;
        if (!child.IsScalar() || child.Scalar().empty()) {
            complain(prefix_ + name, child, shown(child) + " is not a text",
                     "write one word or a quoted text");
        } else {
            field = child.Scalar();
        }
    }
    void value(const char* name, std::vector<double>& field, const char*) {
        const YAML::Node child = take(name);
        if (!child) return;
        const std::size_t count = field.size();
        bool good = child.IsSequence() && child.size() == count;
        std::vector<double> values(count);
        for (std::size_t i = 0; good && i < count; ++i) {
            good = YAML::convert<double>::decode(child[i], values[i]) && values[i] >= 0 && values[i] < 1;
        }
        if (good) {
            field = values;
        } else {
            complain(prefix_ + name, child, shown(child) + " is unreadable",
                     fmt::format("a list of {} numbers in [0, 1), e.g. [0.9, 0.95]", count));
        }
    }
    template <class Number>
    void value(const char* name, std::optional<Number>& field, const char* word, const Limits& limits,
               const char*) {
        const YAML::Node child = take(name);
        if (!child || empties(child, word, field)) return;
        Number number_read{};
        const char* kind = std::is_same_v<Number, i64> ? "a whole number" : "a number";
        if (number(name, child, number_read, limits, fmt::format("{} or {}", word, kind)))
            field = number_read;
    }
    void value(const char* name, std::optional<bool>& field, const char* word, const char*) {
        const YAML::Node child = take(name);
        if (!child || empties(child, word, field)) return;
        bool read = false;
        if (truth(name, child, read)) field = read;
    }
    void choice(const char* name, std::string& field, const Choices& choices, const char*) {
        const YAML::Node child = take(name);
        if (child && chosen(name, child, choices)) field = child.Scalar();
    }
    void choices(const char* name, std::vector<std::string>& field, const Choices& choices, const char*) {
        const YAML::Node child = take(name);
        if (!child) return;
        if (!child.IsSequence()) {
            complain(prefix_ + name, child, shown(child) + " is not a list", "a list of: " + joined(choices));
            return;
        }
        std::vector<std::string> values;
        for (const YAML::Node& item : child) {
            if (chosen(name, item, choices)) values.push_back(item.Scalar());
        }
        field = values;
    }

  private:
    /// {2: {key: value}}, as an override has it.
    template <class Section>
    void read_one_of(const YAML::Node& node, const std::string& prefix, std::vector<Section>& sections) {
        for (const auto& entry : node) {
            i64 index = -1;
            const bool number = entry.first.IsScalar() && decode(entry.first, index);
            if (number && 0 <= index && index < static_cast<i64>(sections.size())) {
                SectionReader(entry.second, fmt::format("{}.{}.", prefix, index), loaded_, override_)
                    .read(sections[static_cast<std::size_t>(index)]);
            } else {
                complain(prefix, node, shown(entry.first) + " is no entry of this list",
                         sections.empty() ? "the list is empty; set it as a whole"
                                          : fmt::format("0 to {}", sections.size() - 1));
            }
        }
    }
    /// The child of that name, remembered as known and where it stands; an undefined node where there is
    /// none.
    YAML::Node take(const char* name) {
        known_.emplace_back(name);
        for (const auto& entry : node_) {
            if (entry.first.IsScalar() && entry.first.Scalar() == name) {
                // An override does not place the sections on the way to the key that it sets.
                const bool keep = !override_.empty() && entry.second.IsMap();
                if (!keep || !loaded_.where.contains(prefix_ + name))
                    loaded_.where[prefix_ + name] =
                        where(entry.first.Mark().is_null() ? entry.second : entry.first);
                return entry.second;
            }
        }
        return YAML::Node(YAML::NodeType::Undefined);
    }
    [[nodiscard]] std::string where(const YAML::Node& node) const {
        if (!override_.empty()) return "--set " + override_;
        return fmt::format("{}:{}", loaded_.file, node.Mark().line + 1);
    }
    void complain(const std::string& key, const YAML::Node& node, std::string message, std::string hint) {
        loaded_.diagnostics.add({where(node), key, std::move(message), std::move(hint)});
    }
    template <class Field>
    static bool empties(const YAML::Node& child, const char* word, Field& field) {
        const bool is_word = child.IsScalar() && child.Scalar() == word;
        if (is_word) field.reset();
        return is_word;
    }
    template <class Number>
    bool number(const char* name, const YAML::Node& child, Number& field, const Limits& limits,
                const std::string& kind) {
        Number read{};
        if (!child.IsScalar() || !decode(child, read)) {
            complain(prefix_ + name, child, shown(child) + " is not " + kind, kind + ", " + allowed(limits));
            return false;
        }
        const auto real = static_cast<double>(read);
        if (!(real >= limits.low && real <= limits.high)) {
            complain(prefix_ + name, child, shown(child) + " is out of range",
                     real > limits.high ? fmt::format("at most {}", limits.high) : allowed(limits));
            return false;
        }
        field = read;
        return true;
    }
    /// Decimal: YAML 1.1 would read 0100 as 64, which nobody means.
    static bool decode(const YAML::Node& child, i64& value) {
        const std::string& text = child.Scalar();
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc() && end == text.data() + text.size();
    }
    static bool decode(const YAML::Node& child, double& value) {
        return YAML::convert<double>::decode(child, value);
    }
    bool truth(const char* name, const YAML::Node& child, bool& field) {
        if (child.IsScalar() && YAML::convert<bool>::decode(child, field)) return true;
        complain(prefix_ + name, child, shown(child) + " is neither true nor false", "true or false");
        return false;
    }
    bool chosen(const char* name, const YAML::Node& child, const Choices& choices) {
        if (child.IsScalar() && std::find(choices.begin(), choices.end(), child.Scalar()) != choices.end())
            return true;
        std::string hint = "one of: " + joined(choices);
        const std::string near = child.IsScalar() ? nearest_name(child.Scalar(), choices) : "";
        if (!near.empty()) hint = fmt::format("did you mean '{}'? One of: {}", near, joined(choices));
        complain(prefix_ + name, child, shown(child) + " is unknown", hint);
        return false;
    }
    void report_unknown() {
        std::set<std::string> seen;
        for (const auto& entry : node_) {
            const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : shown(entry.first);
            if (!seen.insert(key).second)
                complain(prefix_ + key, entry.first, "is given twice", "keep one of the two lines");
            if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
            const std::string near = nearest_name(key, known_);
            complain(prefix_ + key, entry.first, "is no key of this section",
                     near.empty() ? "known are: " + joined(known_) : fmt::format("did you mean '{}'?", near));
        }
    }

    YAML::Node node_;
    std::string prefix_;
    LoadedConfig& loaded_;
    std::string override_;
    Choices known_;
};

void read_text(LoadedConfig& loaded, const std::string& text) {
    try {
        if (const auto document = load_yaml(text))
            SectionReader(*document, "", loaded, "").read(loaded.config);
    } catch (const YAML::Exception& error) {
        loaded.diagnostics.add(yaml_mistake(loaded.file, error));
    }
}

void read_override(LoadedConfig& loaded, const std::string& text) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
        loaded.diagnostics.add(
            {"--set " + text, "", "has no key=value", "write e.g. --set optimizer.lr=1e-3"});
        return;
    }
    try {
        YAML::Node value = YAML::Load(text.substr(equals + 1));
        std::vector<std::string> path;
        std::stringstream keys(text.substr(0, equals));
        for (std::string key; std::getline(keys, key, '.');) path.push_back(key);
        if (path.size() > kDeepestKey) {
            loaded.diagnostics.add({"--set " + text.substr(0, 60) + "...", "", "names no key: it is too deep",
                                    "write e.g. --set optimizer.lr=1e-3"});
            return;
        }
        for (auto key = path.rbegin(); key != path.rend(); ++key) {
            YAML::Node parent;
            parent[*key] = value;
            value = parent;
        }
        SectionReader(value, "", loaded, text).read(loaded.config);
    } catch (const YAML::Exception& error) {
        loaded.diagnostics.add(
            {"--set " + text, "", "is unreadable: " + error.msg, "write e.g. --set optimizer.lr=1e-3"});
    }
}

/// A path and sources exclude each other; of a file's and an override's the override wins.
void choose_path_or_sources(LoadedConfig& loaded) {
    DataConfig& data = loaded.config.task.data;
    const auto path = loaded.where.find("task.data.path");
    if (path == loaded.where.end() || data.sources.empty()) return;
    const auto sources = loaded.where.find("task.data.sources");
    const bool path_set = path->second.starts_with("--set ");
    if (path_set == sources->second.starts_with("--set ")) {
        loaded.complain("task.data.sources", "stands beside task.data.path", "keep one of the two");
    } else if (path_set) {
        data.sources.clear();
    }
}

void finish(LoadedConfig& loaded, std::span<const std::string> overrides, Purpose purpose) {
    for (const std::string& one : overrides) read_override(loaded, one);
    choose_path_or_sources(loaded);
    validate(loaded, purpose);
    loaded.diagnostics.sort_by_line();
}

}  // namespace

void LoadedConfig::complain(const std::string& key, std::string message, std::string hint) {
    // A key that was left at its default stands where its section does.
    for (std::string given = key;; given = given.substr(0, given.rfind('.'))) {
        if (const auto found = where.find(given); found != where.end()) {
            diagnostics.add({found->second, key, std::move(message), std::move(hint)});
            return;
        }
        if (given.find('.') == std::string::npos) break;
    }
    diagnostics.add({file + ":1", key, std::move(message), std::move(hint)});
}

LoadedConfig load_config(const std::filesystem::path& path, std::span<const std::string> overrides) {
    LoadedConfig loaded;
    loaded.file = path.string();
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) {
        loaded.diagnostics.add(
            {loaded.file, "", "no such file", "give the path of a configuration, e.g. configs/quad.yaml"});
        return loaded;
    }
    if (std::filesystem::is_directory(status)) {
        loaded.diagnostics.add({loaded.file, "", "is a folder", "give the path of a YAML file"});
        return loaded;
    }
    if (std::filesystem::file_size(path, error) > kLargestYamlFile && !error) {
        loaded.diagnostics.add({loaded.file, "", "is larger than 1 MiB", "this is hardly a configuration"});
        return loaded;
    }
    std::ifstream stream(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    if (!stream) {
        loaded.diagnostics.add({loaded.file, "", "cannot be read", "check its permissions"});
        return loaded;
    }
    read_text(loaded, text);
    finish(loaded, overrides, Purpose::training);
    find_data(loaded.config.task.data, path);
    return loaded;
}

LoadedConfig parse_config(std::string_view text, const std::string& name,
                          std::span<const std::string> overrides, Purpose purpose) {
    LoadedConfig loaded;
    loaded.file = name;
    read_text(loaded, std::string(text));
    finish(loaded, overrides, purpose);
    return loaded;
}

}  // namespace moesaic
