#include "runtime/parameter.h"

namespace moesaic {

std::string Parameter::name_for_expert(i64 other) const {
    const std::string from = fmt::format(".experts.{}.", expert);
    const std::size_t at = name.find(from);
    MOESAIC_ASSERT(at != std::string::npos, "{} does not name its expert {}", name, expert);
    return fmt::format("{}.experts.{}.{}", name.substr(0, at), other, name.substr(at + from.size()));
}

}  // namespace moesaic
