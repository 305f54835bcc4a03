// Which class of Hugging Face a model of ours is, and its config.json.
#pragma once

#include <string>
#include <vector>

#include "launch/convert/families.h"
#include "layers/model_spec.h"
#include "runtime/config/config.h"

namespace moesaic {

/// The options that keep a model from being one of that family, each as "key: value (what the class has)".
[[nodiscard]] std::vector<std::string> obstacles(Family family, const Config& config, const ModelSpec& spec);

/// The family that the model is; where it is none, a UserError that lists each family's obstacles.
[[nodiscard]] Family choose_family(const Config& config, const ModelSpec& spec, const std::string& model);

/// config.json. `imported_config` is the path of the one that the model was imported with, or empty: its
/// numbers of special tokens and its number of positions are kept.
[[nodiscard]] std::string huggingface_config(Family family, const ModelSpec& spec, bool brain_float,
                                             const std::string& imported_config);

}  // namespace moesaic
