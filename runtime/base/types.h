// Short names of the integer types that shapes and counts use.
#pragma once

#include <cstdint>

namespace moesaic {

using i32 = std::int32_t;
using i64 = std::int64_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

}  // namespace moesaic
