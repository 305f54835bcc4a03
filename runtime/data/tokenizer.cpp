// The byte tokenizer, behind the one place that knows tokenizers by name.
#include "runtime/data/tokenizer.h"

#include "runtime/base/error.h"

namespace moesaic {
namespace {

class ByteTokenizer final : public Tokenizer {
  public:
    [[nodiscard]] i64 vocabulary_size() const override { return 256; }

    [[nodiscard]] std::vector<i32> encode(std::string_view text) const override {
        std::vector<i32> tokens;
        tokens.reserve(text.size());
        for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
        return tokens;
    }

    [[nodiscard]] std::string decode(std::span<const i32> tokens) const override {
        std::string text;
        text.reserve(tokens.size());
        for (const i32 token : tokens) {
            MOESAIC_ASSERT(0 <= token && token < 256, "token {}", token);
            text.push_back(static_cast<char>(static_cast<unsigned char>(token)));
        }
        return text;
    }

    [[nodiscard]] bool is_bytewise() const override { return true; }
};

/// Stands where data are token ids and nobody asks for text.
class NoTokenizer final : public Tokenizer {
  public:
    [[nodiscard]] i64 vocabulary_size() const override { return 0; }
    [[nodiscard]] std::vector<i32> encode(std::string_view) const override { refuse(); }
    [[nodiscard]] std::string decode(std::span<const i32>) const override { refuse(); }

  private:
    [[noreturn]] static void refuse() {
        throw UserError(
            "text needs a tokenizer, and task.data.tokenizer is none; set it to the tokenizer of the data");
    }
};

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name) {
    if (name == "none") return std::make_unique<NoTokenizer>();
    if (name == "bytes") return std::make_unique<ByteTokenizer>();
    throw UserError(
        fmt::format("tokenizer '{}': there is none of that name; use `bytes` (vocabulary 256)", name));
}

}  // namespace moesaic
