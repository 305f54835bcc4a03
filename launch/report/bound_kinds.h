// What recorded bounds limit, by their names.
#pragma once

#include <cstddef>
#include <string_view>

namespace moesaic {

/// What a bound limits: "gap", "risk" (the loss itself) or "trend"; of a name that the table of bounds lacks,
/// as its longest beginning that the table has, else "gap".
[[nodiscard]] std::string_view bound_kind(std::string_view name);
/// The position of a bound in that table, where what certifies most comes first.
[[nodiscard]] std::size_t bound_rank(std::string_view name);

}  // namespace moesaic
