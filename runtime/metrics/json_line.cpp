#include "runtime/metrics/json_line.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace moesaic {

namespace {

/// Bytes of the UTF-8 character at the start of `text`; 0 when there is none (Unicode 15, table 3-7).
std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t index) -> unsigned {
        return index < text.size() ? static_cast<unsigned char>(text[index]) : 0u;
    };
    const auto continues = [&](std::size_t index) { return (byte(index) & 0xc0u) == 0x80u; };
    const unsigned first = byte(0), second = byte(1);
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4 || !continues(1)) return 0;
    if (first < 0xe0) return 2;
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || !continues(2)) return 0;
    if (first < 0xf0) return 3;
    if ((first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) || !continues(3)) return 0;
    return 4;
}

}  // namespace

void append_json(std::string& out, std::string_view value) {
    out += '"';
    while (!value.empty()) {
        const std::size_t length = utf8_length(value);
        const char letter = value.front();
        if (length == 0) {
            out += "\xef\xbf\xbd";
        } else if (letter == '"' || letter == '\\') {
            out += {'\\', letter};
        } else if (letter == '\n') {
            out += "\\n";
        } else if (letter == '\t') {
            out += "\\t";
        } else if (length == 1 && (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f)) {
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(letter));
        } else {
            out += value.substr(0, length);
        }
        value.remove_prefix(length == 0 ? 1 : length);
    }
    out += '"';
}

void append_json(std::string& out, double value) {
    if (std::isnan(value))
        out += "\"nan\"";
    else if (std::isinf(value))
        out += value > 0 ? "\"inf\"" : "\"-inf\"";
    else
        fmt::format_to(std::back_inserter(out), "{}", value);
}

void append_json(std::string& out, i64 value) {
    fmt::format_to(std::back_inserter(out), "{}", value);
}

void append_json(std::string& out, u64 value) {
    fmt::format_to(std::back_inserter(out), "{}", value);
}

void append_json(std::string& out, bool value) {
    out += value ? "true" : "false";
}

}  // namespace moesaic
