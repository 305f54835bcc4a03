// What a router decided, as plain data.
#pragma once

#include "runtime/tensor.h"

namespace moesaic {

struct Routing {
    Tensor expert;  ///< i32 [T,K] global expert numbers, distinct within a token; -1: dropped
    Tensor weight;  ///< real [T,K]
};

}  // namespace moesaic
