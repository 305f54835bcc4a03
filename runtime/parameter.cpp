#include "runtime/parameter.h"

namespace moesaic {

std::string Parameter::name_for_expert(i64 other) const {
    const std::string from = fmt::format(".experts.{}.", expert);
    const std::size_t at = name.find(from);
    MOESAIC_ASSERT(at != std::string::npos, "{} does not name its expert {}", name, expert);
    return fmt::format("{}.experts.{}.{}", name.substr(0, at), other, name.substr(at + from.size()));
}

Shape Parameter::whole_shape() const {
    if (!is_cut()) return shape;
    MOESAIC_ASSERT(shape.rank() == 2, "{} of shape {} is cut", name, shape.text());
    const i64 rows = shape[0] * (slice.axis == 0 ? slice.count : 1);
    const i64 cols = shape[1] * (slice.axis == 1 ? slice.count : 1);
    return {rows, cols};
}

i64 Parameter::element_in_whole(i64 element, int index) const {
    if (!is_cut()) return element;
    if (slice.axis == 0) return index * shape.elements() + element;
    const i64 cols = shape.cols();
    return element / cols * cols * slice.count + index * cols + element % cols;
}

}  // namespace moesaic
