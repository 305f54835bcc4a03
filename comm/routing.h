// What a router decided, as plain data.
#pragma once

#include <limits>

#include "runtime/tensor.h"

namespace moesaic {

struct Routing {
    Tensor expert;  ///< i32 [T,K] global expert numbers, distinct within a token; -1: dropped
    Tensor weight;  ///< real [T,K]
    i64 most_rows = std::numeric_limits<i64>::max();  ///< of one expert, where a capacity limits them
};

}  // namespace moesaic
