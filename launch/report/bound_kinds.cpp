#include "launch/report/bound_kinds.h"

#include "runtime/metrics/bounds/bound_table.h"

namespace moesaic {

std::string_view bound_kind(std::string_view name) {
    const Bound* nearest = nullptr;
    for (const Bound& bound : bound_table())
        if (name.starts_with(bound.name) && (!nearest || bound.name.size() > nearest->name.size()))
            nearest = &bound;
    return nearest ? name_of(nearest->kind) : "gap";
}

std::size_t bound_rank(std::string_view name) {
    std::size_t rank = bound_table().size(), length = 0;
    for (std::size_t i = 0; i < bound_table().size(); ++i) {
        const std::string_view known = bound_table()[i].name;
        if (name.starts_with(known) && known.size() > length) {
            rank = i;
            length = known.size();
        }
    }
    return rank;
}

}  // namespace moesaic
