// Tokenizers: text to token ids and back.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Maps text to token ids in [0, vocabulary_size()) and back. Stateless: callers may share one over threads.
class Tokenizer {
  public:
    Tokenizer() = default;
    Tokenizer(const Tokenizer&) = delete;
    Tokenizer& operator=(const Tokenizer&) = delete;
    virtual ~Tokenizer() = default;

    /// The number of distinct token ids.
    [[nodiscard]] virtual i64 vocabulary_size() const = 0;
    /// Any bytes are valid text, NUL and invalid UTF-8 included.
    [[nodiscard]] virtual std::vector<i32> encode(std::string_view text) const = 0;
    /// Inverse of encode(). Every id must be in [0, vocabulary_size()).
    [[nodiscard]] virtual std::string decode(std::span<const i32> tokens) const = 0;
    /// Whether token i is byte i of the text, so that the text may be stored in place of its tokens.
    [[nodiscard]] virtual bool is_bytewise() const { return false; }
    /// The id that ends a document, where the vocabulary has one.
    [[nodiscard]] virtual std::optional<i32> end_of_text() const { return {}; }
};

/// The tokenizer of that name: `bytes` (256 ids, one for each byte value); `none`: a stand-in of no ids,
/// which throws UserError where text is asked for. Throws UserError for other names.
[[nodiscard]] std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name);

}  // namespace moesaic
