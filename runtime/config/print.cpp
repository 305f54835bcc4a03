// Printing the configuration: YAML, the flat list of keys, the reference table. All follow from the structs'
// fields.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "runtime/config/load.h"

namespace moesaic {

namespace {

std::string quoted(const std::string& text) {
    static const Choices kReserved{"true", "false", "yes",  "no", "on", "off",
                                   "null", "Null",  "NULL", "y",  "n"};
    const auto plain = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '/' || c == '.' || c == '-';
    };
    const bool starts_well = !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) ||
                                               text[0] == '_' || text[0] == '/');
    if (starts_well && std::all_of(text.begin(), text.end(), plain) &&
        std::find(kReserved.begin(), kReserved.end(), text) == kReserved.end()) {
        return text;
    }
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result += '\\';
            result += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            result += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
        } else {
            result += c;
        }
    }
    return result + "\"";
}

/// Calls `entry(dotted key, value, allowed, help)` per field and `open(dotted key)` per section; a visitor of
/// config.h. A list of sections is one entry, its value in YAML's flow style; with `describe_lists` the
/// fields of its sections follow, with their defaults, and so do those of a section that a word replaces.
template <class Entry, class Open>
class Walker {
  public:
    Walker(Entry entry, Open open, bool describe_lists)
        : entry_(std::move(entry)), open_(std::move(open)), describe_lists_(describe_lists) {}

    template <class Section>
    void section(const char* name, Section& section) {
        open_(prefix_ + name);
        const std::string outer = prefix_;
        prefix_ += std::string(name) + ".";
        section.fields(*this);
        prefix_ = outer;
    }
    template <class Section>
    void section_or_word(const char* name, Section& inner, const bool& is_word, const char* word,
                         const char* help) {
        if (is_word) {
            entry_(prefix_ + name, word, std::string(word) + " or a mapping", help);
            if (describe_lists_) describe(inner, std::string(name) + ".");
        } else {
            section(name, inner);
        }
    }
    template <class Section>
    void sections(const char* name, std::vector<Section>& sections, const char* help) {
        std::string list;
        for (Section& section : sections) {
            std::string fields;
            const auto add = [&](const std::string& key, const std::string& value, const std::string&,
                                 const char*) {
                fields += fmt::format("{}{}: {}", fields.empty() ? "" : ", ", key, value);
            };
            const auto open = [](const std::string&) {};
            Walker<decltype(add), decltype(open)> walker(add, open, false);
            section.fields(walker);
            list += fmt::format("{}{{{}}}", list.empty() ? "" : ", ", fields);
        }
        entry_(prefix_ + name, "[" + list + "]", "list of mappings", help);
        Section defaults;
        if (describe_lists_) describe(defaults, std::string(name) + ".N.");
    }
    void value_unless(bool absent, const char* name, const std::string& field, const char* help) {
        if (!absent) value(name, field, help);
    }
    void value(const char* name, const i64& field, const Limits& limits, const char* help) {
        entry_(prefix_ + name, fmt::format("{}", field), range(limits), help);
    }
    void value(const char* name, const double& field, const Limits& limits, const char* help) {
        entry_(prefix_ + name, fmt::format("{}", field), range(limits), help);
    }
    void value(const char* name, const bool& field, const char* help) {
        entry_(prefix_ + name, field ? "true" : "false", "true, false", help);
    }
    void value(const char* name, const std::string& field, const char* help) {
        entry_(prefix_ + name, quoted(field), "text", help);
    }
    void value(const char* name, const std::vector<double>& field, const char* help) {
        entry_(prefix_ + name, fmt::format("[{}]", fmt::join(field, ", ")), "list of numbers", help);
    }
    template <class Number>
    void value(const char* name, const std::optional<Number>& field, const char* word, const Limits& limits,
               const char* help) {
        entry_(prefix_ + name, field ? fmt::format("{}", *field) : word,
               std::string(word) + " or " + range(limits), help);
    }
    void value(const char* name, const std::optional<bool>& field, const char* word, const char* help) {
        entry_(prefix_ + name, field ? (*field ? "true" : "false") : word,
               std::string(word) + ", true, false", help);
    }
    void choice(const char* name, const std::string& field, const Choices& choices, const char* help) {
        entry_(prefix_ + name, quoted(field), fmt::format("{}", fmt::join(choices, ", ")), help);
    }
    void choices(const char* name, const std::vector<std::string>& field, const Choices& choices,
                 const char* help) {
        entry_(prefix_ + name, fmt::format("[{}]", fmt::join(field, ", ")),
               fmt::format("{}", fmt::join(choices, ", ")), help);
    }

  private:
    /// The fields of a section that is not there, with their defaults.
    template <class Section>
    void describe(Section& defaults, const std::string& below) {
        const std::string outer = prefix_;
        prefix_ += below;
        defaults.fields(*this);
        prefix_ = outer;
    }
    static std::string range(const Limits& limits) {
        if (limits.high >= 1e15) return fmt::format(">= {}", limits.low);
        return fmt::format("{} to {}", limits.low, limits.high);
    }
    Entry entry_;
    Open open_;
    std::string prefix_;
    bool describe_lists_;
};

template <class Entry, class Open>
void walk(const Config& config, Entry entry, Open open, bool describe_lists = false) {
    Config copy = config;  // fields() is one list for reading and printing, so it wants something to write to
    Walker<Entry, Open> walker(std::move(entry), std::move(open), describe_lists);
    copy.fields(walker);
}

std::string indented(const std::string& dotted) {
    const auto depth = static_cast<std::size_t>(std::count(dotted.begin(), dotted.end(), '.'));
    return std::string(2 * depth, ' ') + dotted.substr(dotted.rfind('.') + 1) + ":";
}

}  // namespace

std::string to_yaml(const Config& config) {
    std::string text;
    walk(
        config,
        [&](const std::string& key, const std::string& value, const std::string&, const char*) {
            text += indented(key) + " " + value + "\n";
        },
        [&](const std::string& key) { text += indented(key) + "\n"; });
    return text;
}

std::map<std::string, std::string> flatten(const Config& config) {
    std::map<std::string, std::string> flat;
    walk(
        config,
        [&](const std::string& key, const std::string& value, const std::string&, const char*) {
            flat[key] = value;
        },
        [](const std::string&) {});
    return flat;
}

std::string config_reference() {
    const auto defaults = std::make_unique<Config>();  // on the stack GCC 12 takes a text for uninitialised
    std::string text = "| key | default | allowed | meaning |\n| --- | --- | --- | --- |\n";
    walk(
        *defaults,
        [&](const std::string& key, const std::string& value, const std::string& allowed, const char* help) {
            text += fmt::format("| `{}` | `{}` | {} | {} |\n", key, value, allowed, help);
        },
        [](const std::string&) {}, true);
    return text;
}

}  // namespace moesaic
