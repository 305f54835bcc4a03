// Data files as `data prepare` and `data inspect` open them: by words from the command line.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/commands/commands.h"
#include "runtime/data/token_file.h"

namespace moesaic {

/// The tokenizer that the words name; auto: bytes where a file is text, else none.
[[nodiscard]] std::unique_ptr<Tokenizer> tokenizer_for(const DataReadOptions& read,
                                                       const std::vector<DataFile>& files);

/// The words resolved. `vocabulary` is the tokenizer's where no other is named; `tokenizer` outlives the
/// result.
[[nodiscard]] TokenFileOptions file_options_for(const DataReadOptions& read, const Tokenizer& tokenizer);

/// 1234567 as "1,234,567".
[[nodiscard]] std::string grouped(i64 number);

}  // namespace moesaic
