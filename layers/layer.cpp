#include "layers/layer.h"

namespace moesaic {

std::string block_parameter_name(int layer, std::string_view rest) {
    return fmt::format("model.layers.{}.{}", layer, rest);
}

}  // namespace moesaic
