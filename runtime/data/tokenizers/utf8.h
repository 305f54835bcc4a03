// UTF-8: where a text is well-formed, and its code points.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace moesaic {

/// Bytes of the well-formed sequence that `text` begins with; 0 where it begins with none (also where it is
/// empty). Overlong forms, surrogates and code points above U+10FFFF are not well-formed.
/// Source: The Unicode Standard, table 3-7.
[[nodiscard]] std::size_t utf8_sequence_bytes(std::string_view text);

/// How many bytes at the front of `text` are well-formed, and how many belong to no well-formed sequence.
[[nodiscard]] std::size_t well_formed_prefix(std::string_view text);
[[nodiscard]] std::size_t ill_formed_prefix(std::string_view text);

/// The code point that a text which begins with `bytes` = utf8_sequence_bytes(text) > 0 begins with.
[[nodiscard]] char32_t first_code_point(std::string_view text, std::size_t bytes);
void append_code_point(std::string& text, char32_t code_point);

/// Bytes of the character with Unicode's property White_Space at the front or the end of `text`; 0 where
/// there is none.
[[nodiscard]] std::size_t leading_white_space(std::string_view text);
[[nodiscard]] std::size_t trailing_white_space(std::string_view text);

}  // namespace moesaic
