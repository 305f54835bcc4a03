// The one file that knows utf8proc.
#include "runtime/data/tokenizers/nfc.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "runtime/base/error.h"
#include "runtime/data/tokenizers/utf8.h"

namespace moesaic {
namespace {

bool is_ascii(char c) {
    return static_cast<unsigned char>(c) < 0x80;
}

/// `text` is well-formed.
void append_nfc(std::string_view text, std::string& result) {
    struct Free {
        void operator()(utf8proc_uint8_t* pointer) const { std::free(pointer); }
    };
    utf8proc_uint8_t* raw = nullptr;
    const utf8proc_ssize_t bytes = utf8proc_map(
        reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
        &raw, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const std::unique_ptr<utf8proc_uint8_t, Free> owned(raw);
    if (bytes < 0) throw Error(fmt::format("normalizing {} bytes: {}", text.size(), utf8proc_errmsg(bytes)));
    result.append(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(bytes));
}

}  // namespace

std::string normalize_nfc(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    std::size_t at = 0;
    while (at < text.size()) {
        // Nothing composes with an ASCII character before it: each begins a piece of its own. Most are alone.
        std::size_t end = at + (is_ascii(text[at]) ? 1 : 0);
        while (end < text.size() && !is_ascii(text[end])) ++end;
        std::string_view piece = text.substr(at, end - at);
        at = end;
        if (piece.size() == 1 && is_ascii(piece[0])) {
            result.push_back(piece[0]);
            continue;
        }
        while (!piece.empty()) {
            const std::size_t valid = well_formed_prefix(piece);
            if (valid > 0) append_nfc(piece.substr(0, valid), result);
            piece.remove_prefix(valid);
            const std::size_t invalid = ill_formed_prefix(piece);
            result += piece.substr(0, invalid);
            piece.remove_prefix(invalid);
        }
    }
    return result;
}

}  // namespace moesaic
