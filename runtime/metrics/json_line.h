// Writing of one JSON object as one line of text.
#pragma once

#include <array>
#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Appends a value as JSON. Numbers take the shortest form that reads back as the same number; "nan", "inf"
/// and "-inf" are strings; an absent value is null. In strings, control characters are escaped and bytes that
/// are not UTF-8 become U+FFFD.
void append_json(std::string& out, std::string_view value);
void append_json(std::string& out, double value);
void append_json(std::string& out, i64 value);
void append_json(std::string& out, u64 value);
void append_json(std::string& out, bool value);
inline void append_json(std::string& out, const std::string& value) {
    append_json(out, std::string_view(value));
}
inline void append_json(std::string& out, const char* value) {
    append_json(out, std::string_view(value));
}
inline void append_json(std::string& out, int value) {
    append_json(out, static_cast<i64>(value));
}

template <class T>
void append_json(std::string& out, const std::optional<T>& value);
template <class T>
void append_json(std::string& out, const std::vector<T>& values);
template <class T>
void append_json(std::string& out, const std::map<std::string, T>& members);

/// A struct that names its members once: `template <class Visitor> void fields(Visitor&& visit) const` calls
/// visit(name, member) for each.
struct AnyVisitor {
    template <class T>
    void operator()(std::string_view, const T&) const {}
};
template <class T>
concept HasFields = requires(const T& value, AnyVisitor visitor) {
    value.fields(visitor);
};

template <HasFields T>
void append_json(std::string& out, const T& value);

/// An object under construction: fields appear in the order of the calls.
class JsonLine {
  public:
    template <class T>
    JsonLine& field(std::string_view name, const T& value) {
        if (text_.size() > 1) text_ += ',';
        append_json(text_, name);
        text_ += ':';
        append_json(text_, value);
        return *this;
    }
    template <HasFields T>
    JsonLine& fields_of(const T& value) {
        value.fields([this](std::string_view name, const auto& member) { field(name, member); });
        return *this;
    }
    /// The complete object, without a line break.
    [[nodiscard]] std::string text() const { return text_ + "}"; }

  private:
    std::string text_ = "{";
};

template <class T>
void append_json(std::string& out, const std::optional<T>& value) {
    if (value)
        append_json(out, *value);
    else
        out += "null";
}

template <class T>
void append_json(std::string& out, const std::vector<T>& values) {
    out += '[';
    bool first = true;
    for (const T& value : values) {
        if (!std::exchange(first, false)) out += ',';
        append_json(out, value);
    }
    out += ']';
}

template <class T>
void append_json(std::string& out, const std::map<std::string, T>& members) {
    JsonLine object;
    for (const auto& [name, value] : members) object.field(name, value);
    out += object.text();
}

template <HasFields T>
void append_json(std::string& out, const T& value) {
    out += JsonLine().fields_of(value).text();
}

}  // namespace moesaic
