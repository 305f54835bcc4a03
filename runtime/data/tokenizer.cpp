// The byte tokenizer, and the one place that tells the kinds of tokenizers apart.
#include "runtime/data/tokenizer.h"

#include <filesystem>

#include "runtime/base/error.h"
#include "runtime/data/tokenizers/merges_file.h"
#include "runtime/data/tokenizers/tokenizer_json.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy =
    "use `bytes` (vocabulary 256), a tokenizer.json of Hugging Face, a merges file of GPT-2 (merges.txt, "
    "vocab.bpe), or a folder with one of these";

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
            check_token(token);
            text.push_back(static_cast<char>(static_cast<unsigned char>(token)));
        }
        return text;
    }

    [[nodiscard]] bool is_bytewise() const override { return true; }
    [[nodiscard]] std::string describe() const override { return "bytes, vocabulary 256"; }
    [[nodiscard]] std::string fingerprint() const override { return "bytes"; }
};

/// Stands where data are token ids and nobody asks for text.
class NoTokenizer final : public Tokenizer {
  public:
    [[nodiscard]] i64 vocabulary_size() const override { return 0; }
    [[nodiscard]] std::vector<i32> encode(std::string_view) const override { refuse(); }
    [[nodiscard]] std::string decode(std::span<const i32>) const override { refuse(); }
    [[nodiscard]] std::string describe() const override { return "none"; }
    [[nodiscard]] std::string fingerprint() const override { return ""; }  // fits any

  private:
    [[noreturn]] static void refuse() {
        throw UserError(
            "text needs a tokenizer, and task.data.tokenizer is none; set it to the tokenizer of the data");
    }
};

/// The file that a path means: itself, or the one in a folder.
std::string file_of(const std::string& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status)) {
        throw UserError(
            fmt::format("tokenizer '{}': there is no such name, file or folder; {}", path, kRemedy));
    }
    if (!fs::is_directory(status)) return path;
    for (const char* name : {"tokenizer.json", "merges.txt", "vocab.bpe"}) {
        const fs::path file = fs::path(path) / name;
        if (fs::exists(file, error)) return file.string();
    }
    const bool sentence_piece = fs::exists(fs::path(path) / "tokenizer.model", error);
    throw UserError(
        fmt::format("tokenizer '{}': the folder holds no tokenizer.json, merges.txt or vocab.bpe{}; {}", path,
                    sentence_piece ? " (a SentencePiece tokenizer.model is not read)" : "", kRemedy));
}

}  // namespace

void Tokenizer::check_token(i32 token) const {
    if (0 <= token && token < vocabulary_size()) return;
    throw UserError(
        fmt::format("token {} is not in the vocabulary ({}), whose ids are 0 to {}; use the tokenizer that "
                    "made the tokens",
                    token, describe(), vocabulary_size() - 1));
}

std::string Tokenizer::size_text() const {
    return fmt::format("vocabulary {}", vocabulary_size());
}

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name_or_path) {
    if (name_or_path == "none") return std::make_unique<NoTokenizer>();
    if (name_or_path == "bytes") return std::make_unique<ByteTokenizer>();
    const std::string file = file_of(std::string(name_or_path));
    const std::string extension = fs::path(file).extension().string();
    if (extension == ".model" || extension == ".tiktoken" || extension == ".vocab") {
        throw UserError(fmt::format("tokenizer '{}': files of this kind are not read; {}", file, kRemedy));
    }
    return make_bpe_tokenizer(extension == ".json" ? read_tokenizer_json(file) : read_merges_file(file));
}

}  // namespace moesaic
