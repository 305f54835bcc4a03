// The token ids and documents of one data file, whatever its format.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/data_files.h"
#include "runtime/data/id_array.h"
#include "runtime/data/tokenizer.h"

namespace moesaic {

struct DocumentRange {
    i64 begin = 0, end = 0;
    bool operator==(const DocumentRange&) const = default;
};

/// Ids of one file or pair; immutable, so that threads may share it. Formats of token ids are read from a
/// memory map window by window. Text is mapped too where a token is a byte; otherwise text and JSONL are
/// tokenized when the file is opened and stay in memory.
class TokenFile {
  public:
    TokenFile() = default;
    TokenFile(const TokenFile&) = delete;
    TokenFile& operator=(const TokenFile&) = delete;
    virtual ~TokenFile() = default;

    [[nodiscard]] virtual i64 tokens() const = 0;
    /// Writes tokens [first, first + count) to `out`. UserError where an id is outside of the vocabulary.
    virtual void read(i64 first, i64 count, i32* out) const = 0;
    /// Appends, ascending and once each, the tokens of [first, first + count) with which a document begins;
    /// token 0 is one of them.
    virtual void document_starts(i64 first, i64 count, std::vector<i64>& starts) const = 0;
    /// Tokens [begin, end) of the document that has `token`; absent where it goes on for more than
    /// kLongestSearch tokens before or behind it.
    [[nodiscard]] std::optional<DocumentRange> document_around(i64 token) const;
    static constexpr i64 kLongestSearch = i64{1} << 22;
    /// What the file knows of its documents, for messages: "the file is one document".
    [[nodiscard]] virtual std::string documents_by() const = 0;
    /// The layout in a few words: "llm.c, uint16".
    [[nodiscard]] virtual std::string layout() const = 0;
};

struct TokenFileOptions {
    const Tokenizer* tokenizer = nullptr;
    i64 vocabulary = 0;
    std::string text_key = "text";       ///< the member of a JSONL object that is the text
    std::string token_type = "auto";     ///< of ids without a header: auto (uint16), uint16, uint32
    std::optional<i32> end_of_document;  ///< ends documents of text formats, separates those of id formats
};

/// Throws UserError where the file is damaged, is not of its format or holds an id outside of the vocabulary;
/// the message names the file and the byte or line.
[[nodiscard]] std::unique_ptr<TokenFile> open_token_file(const DataFile& file,
                                                         const TokenFileOptions& options);

/// The formats' own readers, which open_token_file chooses from.
[[nodiscard]] std::unique_ptr<TokenFile> open_text_file(const std::string& path,
                                                        const TokenFileOptions& options);
[[nodiscard]] std::unique_ptr<TokenFile> open_jsonl_file(const std::string& path,
                                                         const TokenFileOptions& options);
[[nodiscard]] std::unique_ptr<TokenFile> open_bin_file(const std::string& path,
                                                       const TokenFileOptions& options);
[[nodiscard]] std::unique_ptr<TokenFile> open_megatron_pair(const std::string& prefix,
                                                            const TokenFileOptions& options);
[[nodiscard]] std::unique_ptr<TokenFile> open_npy_file(const std::string& path,
                                                       const TokenFileOptions& options);

/// Ids whose documents a separating id ends, or that are one document without one.
[[nodiscard]] std::unique_ptr<TokenFile> make_separated_ids(IdArray ids, std::optional<i32> end_of_document,
                                                            std::string layout);

/// The words auto, none or a number of `task.data.end_of_document`. auto: the tokenizer's end-of-text token,
/// 0 for `bytes`, none where it has none.
[[nodiscard]] std::optional<i32> resolve_end_of_document(const std::string& word, const Tokenizer& tokenizer);

}  // namespace moesaic
