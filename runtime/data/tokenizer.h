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
    /// Inverse of encode(), unless the tokenizer changes text (a normal form, a space put before it). The
    /// tokens of half a character give half its bytes: the text of tokens one by one is that of all of them.
    /// Throws UserError for an id that is not in [0, vocabulary_size()).
    [[nodiscard]] virtual std::string decode(std::span<const i32> tokens) const = 0;
    /// Whether token i is byte i of the text, so that the text may be stored in place of its tokens.
    [[nodiscard]] virtual bool is_bytewise() const { return false; }
    /// The token that stands between documents, where the vocabulary has one.
    [[nodiscard]] virtual std::optional<i32> end_of_text() const { return std::nullopt; }
    /// One line: what it is, and the size of its vocabulary.
    [[nodiscard]] virtual std::string describe() const { return size_text(); }
    /// Tells tokenizers apart: `xxh64:` and the hash of the file, or the name of one without a file.
    [[nodiscard]] virtual std::string fingerprint() const { return size_text(); }

  protected:
    /// Throws the UserError of decode().
    void check_token(i32 token) const;

  private:
    [[nodiscard]] std::string size_text() const;
};

/// The tokenizer that a configuration names: `bytes` (256 ids, one for each byte value), `none` (a stand-in
/// of no ids, which throws UserError where text is asked for), or a path: a `tokenizer.json` of Hugging Face,
/// a merges file of GPT-2 (`merges.txt`, `vocab.bpe`), or a folder with one of these. Throws UserError for
/// other names, and where the file is not right.
[[nodiscard]] std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name_or_path);

}  // namespace moesaic
