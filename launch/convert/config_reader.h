// Hugging Face's config.json as a configuration of ours.
#pragma once

#include <string>
#include <vector>

#include "launch/convert/families.h"
#include "runtime/config/config.h"

namespace moesaic {

struct ImportedConfig {
    Family family = Family::mixtral;
    ModelConfig model;      ///< with `vocabulary` set
    i64 max_positions = 0;  ///< max_position_embeddings
    /// What was ignored although it is not known to be without effect, and what a user should know.
    std::vector<std::string> warnings;
};

/// Reads one of the four families. Every key that changes what the model computes is taken over or, where we
/// have no counterpart, refused; all mistakes are in one UserError, with file, line and key.
[[nodiscard]] ImportedConfig read_huggingface_config(const std::string& path);

}  // namespace moesaic
