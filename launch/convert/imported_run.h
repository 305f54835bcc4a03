// What import and upcycle share: from a source and a configuration to a run folder.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launch/convert/run_folder.h"
#include "launch/convert/weight_source.h"
#include "runtime/config/load.h"

namespace moesaic {

/// The configuration of a run in `folder`, with the overrides; every mistake is in one UserError.
[[nodiscard]] Config run_config(Config config, const std::string& folder,
                                const std::vector<std::string>& overrides, Purpose purpose);

struct ImportedTokenizer {
    std::string name;         ///< for task.data.tokenizer
    std::string fingerprint;  ///< see Tokenizer::fingerprint; empty: not known
};
/// The folder's tokenizer.json as it will lie in `folder`, where it can be read and its ids fit the model's
/// table; otherwise `bytes`, with a warning. A checkpoint of ours keeps the tokenizer that it has.
[[nodiscard]] ImportedTokenizer imported_tokenizer(const WeightSource& source, const std::string& folder);

/// Small files of a Hugging Face folder that are kept with the run, below `huggingface/`.
[[nodiscard]] std::vector<CopiedFile> companions(const WeightSource& source);

/// Where they lie in a run folder; empty where there is no such file.
[[nodiscard]] std::string companion(const std::string& run_folder, const std::string& name);
[[nodiscard]] std::vector<std::string> companion_names();

}  // namespace moesaic
