// Indices of standard containers from numbers of ranks, experts and rows.
#pragma once

#include <cstddef>

#include "runtime/base/types.h"

namespace moesaic {

[[nodiscard]] constexpr std::size_t at(i64 index) {
    return static_cast<std::size_t>(index);
}

}  // namespace moesaic
