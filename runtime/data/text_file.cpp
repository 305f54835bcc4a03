// Text as tokens: mapped bytes, or ids that a tokenizer made when the file was opened.
#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/jsonl.h"
#include "runtime/data/token_file.h"

namespace moesaic {

namespace {

void check_vocabulary(const std::string& path, const TokenFileOptions& options) {
    const i64 needed = options.tokenizer->vocabulary_size();
    if (needed == 0)
        throw UserError(
            fmt::format("{}: text needs a tokenizer, and task.data.tokenizer is none; set it, or set "
                        "task.data.format to what this file of token ids is",
                        path));
    if (needed <= options.vocabulary) return;
    throw UserError(
        fmt::format("{}: its tokenizer has {} ids, task.data.vocabulary is {}; set it to auto, or to "
                    "{} or more",
                    path, needed, options.vocabulary, needed));
}

void copy_bytes(const char* first, i64 count, i32* out) {
    std::transform(first, first + count, out,
                   [](char byte) { return i32{static_cast<unsigned char>(byte)}; });
}

/// A text whose bytes are its tokens.
class MappedText final : public TokenFile {
  public:
    explicit MappedText(MappedFile file) : file_(std::move(file)) {}

    [[nodiscard]] i64 tokens() const override { return static_cast<i64>(file_.size()); }
    void read(i64 first, i64 count, i32* out) const override {
        copy_bytes(reinterpret_cast<const char*>(file_.data()) + first, count, out);
    }
    void document_starts(i64 first, i64 count, std::vector<i64>& starts) const override {
        if (first == 0 && count > 0) starts.push_back(0);
    }
    [[nodiscard]] std::string documents_by() const override { return "the file is one document"; }
    [[nodiscard]] std::string layout() const override { return "text, mapped"; }

  private:
    MappedFile file_;
};

/// Documents in memory: as bytes where the tokenizer is bytewise, else as ids.
class EncodedDocuments final : public TokenFile {
  public:
    EncodedDocuments(const Tokenizer& tokenizer, std::string layout)
        : tokenizer_(&tokenizer), layout_(std::move(layout)) {}

    /// A document, and the id that ends it.
    void add(std::string_view text, std::optional<i32> end) {
        starts_.push_back(tokens());
        if (tokenizer_->is_bytewise() && end.value_or(0) < 256) {
            bytes_ += text;
            if (end) bytes_.push_back(static_cast<char>(*end));
        } else {
            const std::vector<i32> ids = tokenizer_->encode(text);
            ids_.insert(ids_.end(), ids.begin(), ids.end());
            if (end) ids_.push_back(*end);
        }
        if (starts_.back() == tokens()) starts_.pop_back();  // an empty document
    }
    [[nodiscard]] i64 tokens() const override { return static_cast<i64>(bytes_.size() + ids_.size()); }
    void read(i64 first, i64 count, i32* out) const override {
        if (ids_.empty()) {
            copy_bytes(bytes_.data() + first, count, out);
        } else {
            std::copy_n(ids_.begin() + first, count, out);
        }
    }
    void document_starts(i64 first, i64 count, std::vector<i64>& starts) const override {
        const auto begin = std::lower_bound(starts_.begin(), starts_.end(), first);
        starts.insert(starts.end(), begin, std::lower_bound(begin, starts_.end(), first + count));
    }
    [[nodiscard]] std::string documents_by() const override {
        return fmt::format("{} documents", starts_.size());
    }
    [[nodiscard]] std::string layout() const override { return layout_; }

  private:
    const Tokenizer* tokenizer_;
    std::string layout_;
    std::string bytes_;
    std::vector<i32> ids_;
    std::vector<i64> starts_;
};

}  // namespace

std::unique_ptr<TokenFile> open_text_file(const std::string& path, const TokenFileOptions& options) {
    check_vocabulary(path, options);
    MappedFile file(path);
    if (options.tokenizer->is_bytewise()) return std::make_unique<MappedText>(std::move(file));
    auto text = std::make_unique<EncodedDocuments>(*options.tokenizer, "text, tokenized in memory");
    text->add({reinterpret_cast<const char*>(file.data()), file.size()}, {});
    return text;
}

std::unique_ptr<TokenFile> open_jsonl_file(const std::string& path, const TokenFileOptions& options) {
    check_vocabulary(path, options);
    auto documents =
        std::make_unique<EncodedDocuments>(*options.tokenizer, "JSON Lines, tokenized in memory");
    read_jsonl(MappedFile(path), options.text_key,
               [&](const std::string& text) { documents->add(text, options.end_of_document); });
    return documents;
}

}  // namespace moesaic
