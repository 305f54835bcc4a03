// Token files in the formats that other trainers read.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/data/token_file.h"

namespace moesaic {

/// Takes tokens of documents, in order and in pieces.
class DocumentSink {
  public:
    DocumentSink() = default;
    DocumentSink(const DocumentSink&) = delete;
    DocumentSink& operator=(const DocumentSink&) = delete;
    virtual ~DocumentSink() = default;

    virtual void add(std::span<const i32> tokens) = 0;
    virtual void end_document() = 0;
};

/// Passes on every document of a file: text and JSONL tokenized document by document, token files in blocks.
/// Ids that end documents come along where the file has them; none are added. UserError as open_token_file,
/// but a wrong id of a file of more than 64 MiB is found on the way.
void stream_documents(const DataFile& file, const TokenFileOptions& options, DocumentSink& sink);

struct TokenWriterOptions {
    std::string prefix;                  ///< of the files' paths
    i64 vocabulary = 0;                  ///< chooses the type of the ids
    i64 shard_tokens = 0;                ///< 0: one file; a document is never cut
    std::optional<i32> end_of_document;  ///< written behind every document that does not end with it already
};

/// Writes token files; none appears under its name before finish(), and none is left when the writer ends
/// without.
class TokenWriter : public DocumentSink {
  public:
    struct Written {
        std::vector<std::string> files;
        /// What `task.data` needs to read them, beside the tokenizer: {"path", "a.bin"}, ...
        std::vector<std::pair<std::string, std::string>> keys;
        i64 tokens = 0, documents = 0, bytes = 0;
    };
    /// Collects what has been written and lets it appear.
    [[nodiscard]] virtual Written finish() = 0;
    [[nodiscard]] virtual i64 tokens() const = 0;
    [[nodiscard]] virtual i64 documents() const = 0;
};

/// `format`: megatron (PREFIX.bin and PREFIX.idx), llmc (PREFIX_000001.bin, ...), nanogpt (PREFIX.bin) or npy
/// (PREFIX.npy); several shards are numbered as llm.c numbers them. Ids are uint16 where the vocabulary
/// allows, else int32 (megatron, npy) or uint32 (llmc, nanogpt).
[[nodiscard]] std::unique_ptr<TokenWriter> make_token_writer(const std::string& format,
                                                             const TokenWriterOptions& options);

}  // namespace moesaic
