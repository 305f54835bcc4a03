// The tensors of a model, without the model.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "layers/model_spec.h"
#include "runtime/parameter.h"

namespace moesaic {

/// What a model of this shape declares, in its order; nothing is allocated, values stay empty.
[[nodiscard]] std::vector<Parameter> declared_parameters(const ModelSpec& spec);

/// The model's buffers: tensors without moments, by name.
[[nodiscard]] std::map<std::string, Shape> declared_buffers(const ModelSpec& spec);

/// How many parameters there will be, in closed form: a file can ask for more of them than fit into memory.
[[nodiscard]] double count_declared(const ModelSpec& spec);

}  // namespace moesaic
