// The tensors of a model, without the model.
#pragma once

#include <vector>

#include "layers/model_spec.h"
#include "runtime/parameter.h"

namespace moesaic {

/// What a model of this shape declares, in its order; nothing is allocated, values stay empty.
[[nodiscard]] std::vector<Parameter> declared_parameters(const ModelSpec& spec);

/// How many there will be, in closed form: a file can ask for more of them than fit into memory.
[[nodiscard]] double count_declared(const ModelSpec& spec);

}  // namespace moesaic
