// Writes the token ids of files, for check_tokenizers.py: of each file their number, then the ids; all of it
// little-endian int32.
#include <chrono>
#include <cstdio>

#include "runtime/base/mapped_file.h"
#include "runtime/data/tokenizer.h"

namespace {

void encode_file(const moesaic::Tokenizer& tokenizer, const char* path) {
    const moesaic::MappedFile file(path);
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    const auto start = std::chrono::steady_clock::now();
    const std::vector<moesaic::i32> tokens = tokenizer.encode(text);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    std::fprintf(stderr, "%s: %zu bytes, %zu tokens, %.1f MB/s\n", path, text.size(), tokens.size(),
                 static_cast<double>(text.size()) / 1e6 / time.count());
    const auto count = static_cast<moesaic::i32>(tokens.size());
    std::fwrite(&count, sizeof(count), 1, stdout);
    std::fwrite(tokens.data(), sizeof(moesaic::i32), tokens.size(), stdout);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) {
        std::fprintf(stderr, "usage: encode_file TOKENIZER FILE... > IDS\n");
        return 2;
    }
    try {
        const auto tokenizer = moesaic::make_tokenizer(arguments[1]);
        std::fprintf(stderr, "%s\n", tokenizer->describe().c_str());
        for (int i = 2; i < count; ++i) encode_file(*tokenizer, arguments[i]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
    return 0;
}
