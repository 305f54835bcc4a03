// The byte-level BPE tokenizer: added tokens, normalization, cutting into words, merging.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/tokenizer.h"
#include "runtime/data/tokenizers/added_tokens.h"
#include "runtime/data/tokenizers/bpe_merges.h"
#include "runtime/data/tokenizers/text_pattern.h"

namespace moesaic {

/// One step of cutting a piece of text into smaller ones: the matches, and what lies between them.
struct SplitStage {
    bool adds_space = false;  ///< puts a space before a piece that begins with none
    std::optional<TextPattern> pattern;
};

/// All that a tokenizer's file says.
struct BpeParts {
    std::string description;          ///< for describe(), without the vocabulary's size
    std::string fingerprint;          ///< for fingerprint()
    std::vector<std::string> tokens;  ///< the bytes of every id
    std::array<i32, 256> byte_tokens{};
    std::vector<BpeMerge> merges;
    std::vector<i32> words;          ///< the ids that a word may become: not those of added tokens alone
    bool whole_words_first = false;  ///< a word that is a token needs no merges (`ignore_merges`)
    bool nfc = false;
    std::vector<SplitStage> stages;
    std::vector<AddedToken> raw_added;         ///< found in the text as it is
    std::vector<AddedToken> normalized_added;  ///< found in the normalized text
    std::optional<i32> end_of_text;
};

/// Text is handled in this order: raw added tokens; of what lies between them the normal form; normalized
/// added tokens; the stages; the merges of every word. Bytes that are no well-formed UTF-8 end a piece of
/// text; each run of them is a word.
[[nodiscard]] std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeParts parts);

}  // namespace moesaic
