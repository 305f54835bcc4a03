#include "runtime/data/tokenizers/bpe_tokenizer.h"

#include <unordered_map>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/tokenizers/nfc.h"
#include "runtime/data/tokenizers/utf8.h"

namespace moesaic {
namespace {

class BpeTokenizer final : public Tokenizer {
  public:
    explicit BpeTokenizer(BpeParts parts)
        : parts_(std::move(parts)),
          merges_(parts_.byte_tokens, parts_.merges),
          raw_added_(std::move(parts_.raw_added)),
          normalized_added_(std::move(parts_.normalized_added)) {
        parts_.merges = {};
        BpeMerges::Workspace workspace;
        std::vector<i32> merged;
        for (const i32 id : parts_.words) {
            const std::string& bytes = parts_.tokens[static_cast<std::size_t>(id)];
            merged.clear();
            if (!parts_.whole_words_first) merges_.encode(bytes, workspace, merged);
            // Not every token is what the merges make of its own bytes.
            if (parts_.whole_words_first || (merged.size() == 1 && merged[0] == id)) whole_words_[bytes] = id;
        }
    }

    [[nodiscard]] i64 vocabulary_size() const override { return std::ssize(parts_.tokens); }
    [[nodiscard]] std::vector<i32> encode(std::string_view text) const override;
    [[nodiscard]] std::string decode(std::span<const i32> tokens) const override {
        std::string text;
        for (const i32 token : tokens) {
            check_token(token);
            text += parts_.tokens[static_cast<std::size_t>(token)];
        }
        return text;
    }
    [[nodiscard]] std::optional<i32> end_of_text() const override { return parts_.end_of_text; }
    [[nodiscard]] std::string describe() const override {
        return fmt::format("{}, vocabulary {}", parts_.description, vocabulary_size());
    }
    [[nodiscard]] std::string fingerprint() const override { return parts_.fingerprint; }

  private:
    friend class Encoding;

    BpeParts parts_;
    BpeMerges merges_;
    AddedTokens raw_added_, normalized_added_;
    std::unordered_map<std::string_view, i32> whole_words_;  // keys are parts of parts_.tokens
};

/// One call of encode(): everything in it that changes.
class Encoding {
  public:
    explicit Encoding(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {
        for (const SplitStage& stage : tokenizer.parts_.stages) {
            matchers_.emplace_back();
            if (stage.pattern) matchers_.back().emplace(*stage.pattern);
        }
    }

    std::vector<i32> encode(std::string_view text) {
        const auto add_token = [&](i32 id) { tokens_.push_back(id); };
        tokenizer_.raw_added_.split(
            text,
            [&](std::string_view piece) {
                std::string normalized;
                if (tokenizer_.parts_.nfc) piece = normalized = normalize_nfc(piece);
                tokenizer_.normalized_added_.split(
                    piece, [&](std::string_view rest) { add_text(rest); }, add_token);
            },
            add_token);
        return std::move(tokens_);
    }

  private:
    void add_text(std::string_view text) {
        bool at_begin = true;
        while (!text.empty()) {
            const std::size_t valid = well_formed_prefix(text);
            if (valid > 0) add_piece(0, text.substr(0, valid), at_begin);
            text.remove_prefix(valid);
            const std::size_t invalid = ill_formed_prefix(text);
            if (invalid > 0) add_word(text.substr(0, invalid));
            text.remove_prefix(invalid);
            at_begin = false;
        }
    }

    /// `piece` is well-formed and not empty.
    void add_piece(std::size_t stage_index, std::string_view piece, bool at_begin) {
        if (stage_index == tokenizer_.parts_.stages.size()) return add_word(piece);
        const SplitStage& stage = tokenizer_.parts_.stages[stage_index];
        std::string with_space;
        if (stage.adds_space && at_begin && piece.front() != ' ') {
            piece = with_space = " " + std::string(piece);
        }
        if (!stage.pattern) return add_piece(stage_index + 1, piece, true);
        TextPattern::Matcher& matcher = *matchers_[stage_index];
        std::size_t done = 0;
        const auto add_up_to = [&](std::size_t end) {
            if (end > done) add_piece(stage_index + 1, piece.substr(done, end - done), true);
            done = end;
        };
        while (done < piece.size() && matcher.find(piece, done)) {
            // What the stages behind this one do moves their matchers only.
            const std::size_t end = matcher.end();
            add_up_to(matcher.begin());
            add_up_to(end);
        }
        add_up_to(piece.size());
    }

    void add_word(std::string_view word) {
        if (const auto whole = tokenizer_.whole_words_.find(word); whole != tokenizer_.whole_words_.end()) {
            tokens_.push_back(whole->second);
            return;
        }
        if (word.size() > kLongestRemembered) return tokenizer_.merges_.encode(word, workspace_, tokens_);
        const auto [known, added] = remembered_.try_emplace(std::string(word));
        if (added) tokenizer_.merges_.encode(word, workspace_, known->second);
        tokens_.insert(tokens_.end(), known->second.begin(), known->second.end());
        if (remembered_.size() > kMostRemembered) remembered_.clear();
    }

    static constexpr std::size_t kLongestRemembered = 64;     // bytes of a word
    static constexpr std::size_t kMostRemembered = 1u << 18;  // words: some tens of MB

    const BpeTokenizer& tokenizer_;
    std::vector<std::optional<TextPattern::Matcher>> matchers_;
    BpeMerges::Workspace workspace_;
    std::unordered_map<std::string, std::vector<i32>> remembered_;
    std::vector<i32> tokens_;
};

std::vector<i32> BpeTokenizer::encode(std::string_view text) const {
    return Encoding(*this).encode(text);
}

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeParts parts) {
    return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace moesaic
