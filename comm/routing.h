// What a router decided, as plain data.
#pragma once

#include <optional>

#include "runtime/tensor.h"

namespace moesaic {

struct Routing {
    Tensor expert;  ///< i32 [T,K] global expert numbers, distinct within a token; -1: dropped
    Tensor weight;  ///< real [T,K]
    /// Choices that are not -1, at most, where the configuration says: so that memory needs no room for more.
    std::optional<i64> most_rows = {};

    [[nodiscard]] i64 rows() const { return most_rows.value_or(expert.elements()); }
};

}  // namespace moesaic
