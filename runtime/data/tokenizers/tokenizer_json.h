// Hugging Face's tokenizer.json, the byte-level BPE family (GPT-2, Llama 3, Qwen, OLMoE, GPT-NeoX).
#pragma once

#include <string>

#include "runtime/data/tokenizers/bpe_tokenizer.h"

namespace moesaic {

/// Reads the file as `tokenizers.Tokenizer.from_file` does; encode() then gives what
/// `encode(text, add_special_tokens=False)` gives there. `post_processor`, `truncation` and `padding` are for
/// the inputs of finished models and are left out. The end of the text is the first of `<|endoftext|>`,
/// `<|end_of_text|>`, `</s>`, `<eos>`, `<|eos|>` and DeepSeek's that is a special added token.
/// Throws UserError "file: JSON path: what is wrong; what would be right" for everything that it does not
/// read in full: other models, normalizers, pre-tokenizers, unknown fields, ids that are not 0 to n - 1.
[[nodiscard]] BpeParts read_tokenizer_json(const std::string& path);

}  // namespace moesaic
