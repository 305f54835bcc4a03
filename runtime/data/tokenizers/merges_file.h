// GPT-2's vocabulary from its merges alone.
#pragma once

#include <string>

#include "runtime/data/tokenizers/bpe_tokenizer.h"

namespace moesaic {

/// Reads `merges.txt` (Hugging Face), which is `vocab.bpe` (OpenAI): the line `#version: 0.2`, then a merge
/// `left right` per line, strongest first. Ids: 0-255 the bytes in GPT-2's order, 256 + i what merge i makes,
/// then the end of text, which encode() never gives. A `vocab.json` or `encoder.json` beside the file has to
/// give the same ids. Throws UserError "file:line: what is wrong; what would be right".
[[nodiscard]] BpeParts read_merges_file(const std::string& path);

}  // namespace moesaic
