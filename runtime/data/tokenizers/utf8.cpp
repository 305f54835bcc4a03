#include "runtime/data/tokenizers/utf8.h"

#include <algorithm>

namespace moesaic {
namespace {

bool is_white_space(char32_t c) {
    return (0x09 <= c && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (0x2000 <= c && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

}  // namespace

std::size_t utf8_sequence_bytes(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const auto within = [&](std::size_t i, unsigned low, unsigned high) {
        return i < text.size() && low <= byte(i) && byte(i) <= high;
    };
    if (text.empty()) return 0;
    const unsigned lead = byte(0);
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    if (lead < 0xe0) return within(1, 0x80, 0xbf) ? 2 : 0;
    if (lead < 0xf0) {
        const bool second = within(1, lead == 0xe0 ? 0xa0 : 0x80, lead == 0xed ? 0x9f : 0xbf);
        return second && within(2, 0x80, 0xbf) ? 3 : 0;
    }
    const bool second = within(1, lead == 0xf0 ? 0x90 : 0x80, lead == 0xf4 ? 0x8f : 0xbf);
    return second && within(2, 0x80, 0xbf) && within(3, 0x80, 0xbf) ? 4 : 0;
}

std::size_t well_formed_prefix(std::string_view text) {
    std::size_t bytes = 0;
    while (const std::size_t next = utf8_sequence_bytes(text.substr(bytes))) bytes += next;
    return bytes;
}

std::size_t ill_formed_prefix(std::string_view text) {
    std::size_t bytes = 0;
    while (bytes < text.size() && utf8_sequence_bytes(text.substr(bytes)) == 0) ++bytes;
    return bytes;
}

char32_t first_code_point(std::string_view text, std::size_t bytes) {
    const auto byte = [&](std::size_t i) {
        return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
    };
    if (bytes == 1) return byte(0);
    char32_t code_point = byte(0) & (0x7fu >> bytes);
    for (std::size_t i = 1; i < bytes; ++i) code_point = code_point << 6 | (byte(i) & 0x3f);
    return code_point;
}

void append_code_point(std::string& text, char32_t c) {
    const auto add = [&](char32_t byte) {
        text.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
    };
    if (c < 0x80) {
        add(c);
    } else if (c < 0x800) {
        add(0xc0 | c >> 6);
        add(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        add(0xe0 | c >> 12);
        add(0x80 | (c >> 6 & 0x3f));
        add(0x80 | (c & 0x3f));
    } else {
        add(0xf0 | c >> 18);
        add(0x80 | (c >> 12 & 0x3f));
        add(0x80 | (c >> 6 & 0x3f));
        add(0x80 | (c & 0x3f));
    }
}

std::size_t leading_white_space(std::string_view text) {
    const std::size_t bytes = utf8_sequence_bytes(text);
    return bytes > 0 && is_white_space(first_code_point(text, bytes)) ? bytes : 0;
}

std::size_t trailing_white_space(std::string_view text) {
    for (std::size_t bytes = 1; bytes <= std::min<std::size_t>(3, text.size()); ++bytes) {
        const std::string_view last = text.substr(text.size() - bytes);
        if (utf8_sequence_bytes(last) == bytes) return leading_white_space(last);
    }
    return 0;
}

}  // namespace moesaic
