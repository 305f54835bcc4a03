// Documents of any data file, one after the other, without holding the file.
#include <algorithm>
#include <string_view>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/jsonl.h"
#include "runtime/data/token_writer.h"

namespace moesaic {

namespace {

constexpr i64 kBlockOfTokens = 1 << 16;   // tokens at a time
constexpr std::size_t kPiece = 16 << 20;  // bytes of text at a time

void stream_text(const DataFile& file, const TokenFileOptions& options, DocumentSink& sink) {
    const MappedFile mapped(file.path);
    std::string_view text(reinterpret_cast<const char*>(mapped.data()), mapped.size());
    while (!text.empty()) {
        const std::size_t length =
            options.tokenizer->is_bytewise() ? std::min(kPiece, text.size()) : text.size();
        sink.add(options.tokenizer->encode(text.substr(0, length)));
        text.remove_prefix(length);
    }
    sink.end_document();
}

void stream_ids(const DataFile& file, const TokenFileOptions& options, DocumentSink& sink) {
    const std::unique_ptr<TokenFile> ids = open_token_file(file, options);
    std::vector<i32> block(static_cast<std::size_t>(std::min(kBlockOfTokens, ids->tokens())));
    std::vector<i64> starts;
    for (i64 first = 0; first < ids->tokens(); first += kBlockOfTokens) {
        const i64 count = std::min(kBlockOfTokens, ids->tokens() - first);
        ids->read(first, count, block.data());
        starts.clear();
        ids->document_starts(first, count, starts);
        starts.push_back(first + count);
        i64 at = first;
        for (const i64 start : starts) {
            sink.add(std::span(block).subspan(static_cast<std::size_t>(at - first),
                                              static_cast<std::size_t>(start - at)));
            if (start > first && start < first + count) sink.end_document();
            at = start;
        }
        // A document that begins with the next block ends with this one.
        starts.clear();
        if (first + count < ids->tokens()) ids->document_starts(first + count, 1, starts);
        if (!starts.empty()) sink.end_document();
    }
    if (ids->tokens() > 0) sink.end_document();
}

}  // namespace

void stream_documents(const DataFile& file, const TokenFileOptions& options, DocumentSink& sink) {
    if (file.format == DataFormat::text) return stream_text(file, options, sink);
    if (file.format != DataFormat::jsonl) return stream_ids(file, options, sink);
    read_jsonl(MappedFile(file.path), options.text_key, [&](const std::string& text) {
        sink.add(options.tokenizer->encode(text));
        sink.end_document();
    });
}

}  // namespace moesaic
