#include "launch/commands/data_reading.h"

#include <algorithm>

#include "runtime/base/error.h"

namespace moesaic {

std::unique_ptr<Tokenizer> tokenizer_for(const DataReadOptions& read, const std::vector<DataFile>& files) {
    if (read.tokenizer != "auto") return make_tokenizer(read.tokenizer);
    const bool text = std::any_of(files.begin(), files.end(), [](const DataFile& file) {
        return file.format == DataFormat::text || file.format == DataFormat::jsonl;
    });
    return make_tokenizer(text ? "bytes" : "none");
}

TokenFileOptions file_options_for(const DataReadOptions& read, const Tokenizer& tokenizer) {
    TokenFileOptions options;
    options.tokenizer = &tokenizer;
    options.vocabulary = read.vocabulary.value_or(tokenizer.vocabulary_size());
    options.text_key = read.text_key;
    options.token_type = read.token_type;
    options.end_of_document = resolve_end_of_document(read.end_of_document, tokenizer);
    return options;
}

std::string grouped(i64 number) {
    std::string digits = std::to_string(number);
    for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
        digits.insert(static_cast<std::size_t>(at), ",");
    return digits;
}

}  // namespace moesaic
