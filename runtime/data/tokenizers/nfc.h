// Unicode's normalization form C.
#pragma once

#include <string>
#include <string_view>

namespace moesaic {

/// `text` in normalization form C; bytes that are not well-formed UTF-8 stay as they are and separate what is
/// before them from what is behind. Source: Unicode Standard Annex 15.
[[nodiscard]] std::string normalize_nfc(std::string_view text);

}  // namespace moesaic
