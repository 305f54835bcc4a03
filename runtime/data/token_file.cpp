// Choosing a reader by format; ids that a separating id cuts into documents.
#include "runtime/data/token_file.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr i64 kBlockOfIds = 1 << 14;  // ids searched at a time
constexpr i64 kFirstSearch = 256;     // tokens searched first for the ends of a document

class SeparatedIds final : public TokenFile {
  public:
    SeparatedIds(IdArray ids, std::optional<i32> end_of_document, std::string layout)
        : ids_(std::move(ids)), end_of_document_(end_of_document), layout_(std::move(layout)) {}

    [[nodiscard]] i64 tokens() const override { return ids_.count(); }
    void read(i64 first, i64 count, i32* out) const override { ids_.read(first, count, out); }
    void document_starts(i64 first, i64 count, std::vector<i64>& starts) const override {
        if (first == 0 && count > 0) starts.push_back(0);
        if (!end_of_document_) return;
        // A document begins behind every separating id.
        const i64 begin = std::max<i64>(first, 1) - 1, end = std::max(first + count - 1, begin);
        std::vector<i32> block(static_cast<std::size_t>(std::min(kBlockOfIds, end - begin)));
        for (i64 at = begin; at < end; at += kBlockOfIds) {
            const i64 size = std::min(kBlockOfIds, end - at);
            ids_.read(at, size, block.data());
            for (i64 i = 0; i < size; ++i) {
                if (block[static_cast<std::size_t>(i)] == *end_of_document_) starts.push_back(at + i + 1);
            }
        }
    }
    [[nodiscard]] std::string documents_by() const override {
        return end_of_document_ ? fmt::format("documents end with id {}", *end_of_document_)
                                : "the file is one document: no end_of_document id is known";
    }
    [[nodiscard]] std::string layout() const override { return layout_; }

  private:
    IdArray ids_;
    std::optional<i32> end_of_document_;
    std::string layout_;
};

}  // namespace

std::optional<DocumentRange> TokenFile::document_around(i64 token) const {
    MOESAIC_ASSERT(0 <= token && token < tokens(), "token {} of {}", token, tokens());
    const i64 lowest = std::max<i64>(0, token - kLongestSearch),
              highest = std::min(tokens(), token + kLongestSearch + 1);
    DocumentRange range{-1, -1};
    std::vector<i64> starts;
    // Steps that double: most documents are short, and a search of a long one costs no more than reading it.
    for (i64 end = token + 1, step = kFirstSearch; range.begin < 0; step *= 2) {
        const i64 begin = std::max(lowest, end - step);
        document_starts(begin, end - begin, starts);
        if (!starts.empty()) {
            range.begin = starts.back();
        } else if (begin == lowest) {
            return {};
        }
        end = begin;
    }
    starts.clear();
    for (i64 begin = token + 1, step = kFirstSearch; range.end < 0; step *= 2) {
        const i64 end = std::min(highest, begin + step);
        document_starts(begin, end - begin, starts);
        if (!starts.empty()) {
            range.end = starts.front();
        } else if (end == highest) {
            if (highest < tokens()) return {};
            range.end = end;
        }
        begin = end;
    }
    return range;
}

std::unique_ptr<TokenFile> make_separated_ids(IdArray ids, std::optional<i32> end_of_document,
                                              std::string layout) {
    return std::make_unique<SeparatedIds>(std::move(ids), end_of_document, std::move(layout));
}

std::unique_ptr<TokenFile> open_token_file(const DataFile& file, const TokenFileOptions& options) {
    switch (file.format) {
        case DataFormat::text:
            return open_text_file(file.path, options);
        case DataFormat::jsonl:
            return open_jsonl_file(file.path, options);
        case DataFormat::bin:
            return open_bin_file(file.path, options);
        case DataFormat::megatron:
            return open_megatron_pair(file.path, options);
        case DataFormat::npy:
            return open_npy_file(file.path, options);
    }
    MOESAIC_ASSERT(false, "format {}", static_cast<int>(file.format));
    return nullptr;
}

std::optional<i32> resolve_end_of_document(const std::string& word, const Tokenizer& tokenizer) {
    if (word == "none") return {};
    if (word == "auto") {
        if (tokenizer.is_bytewise()) return 0;
        return tokenizer.end_of_text();
    }
    i32 id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0)
        throw UserError(fmt::format("end_of_document: '{}' is neither auto nor none nor a token id", word));
    return id;
}

}  // namespace moesaic
