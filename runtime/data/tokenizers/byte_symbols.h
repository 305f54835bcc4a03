// The printable characters by which byte-level vocabularies write bytes.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace moesaic {

/// GPT-2's order of the 256 bytes: those that are printable in Latin-1 (0x21-0x7e, 0xa1-0xac, 0xae-0xff)
/// first, then the others. Source: the published code of GPT-2, bytes_to_unicode().
[[nodiscard]] const std::array<unsigned char, 256>& printable_first_bytes();

/// The character that stands for a byte: of the same number for printable bytes, U+0100 + i for the i-th
/// other one.
[[nodiscard]] char32_t symbol_of_byte(unsigned char byte);

/// The bytes that `symbols` (UTF-8) stand for; nullopt where it holds a character that stands for no byte.
[[nodiscard]] std::optional<std::string> bytes_of_symbols(std::string_view symbols);
/// The inverse, for messages.
[[nodiscard]] std::string symbols_of_bytes(std::string_view bytes);

}  // namespace moesaic
