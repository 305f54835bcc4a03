// How often the test program asks the system for much memory at once, behind the tensor pool's back.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

/// What counts as much.
inline constexpr i64 kLargeNewBytes = i64{64} << 10;

/// Calls of operator new for kLargeNewBytes or more so far, on all threads; -1 where a sanitizer has operator
/// new.
[[nodiscard]] i64 large_news() noexcept;

}  // namespace moesaic
