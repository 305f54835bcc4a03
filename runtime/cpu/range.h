// The part of an operation that one task of the thread pool works on.
#pragma once

#include "runtime/base/types.h"

namespace moesaic::cpu {

/// Rows, columns or elements [first, last) of an operation, as the function that takes it says.
struct Range {
    i64 first = 0, last = 0;
};

}  // namespace moesaic::cpu
