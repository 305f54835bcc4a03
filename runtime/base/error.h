// The three kinds of error: the world's (Error), the user's (UserError) and ours (MOESAIC_ASSERT).
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "runtime/base/build_info.h"

namespace moesaic {

/// A failure of the world (MPI, disk, memory, time-out). Exit code 1. Carries the rank and step it arose on.
class Error : public std::runtime_error {
  public:
    explicit Error(const std::string& message);

    [[nodiscard]] int rank() const noexcept { return rank_; }
    [[nodiscard]] std::int64_t step() const noexcept { return step_; }

  private:
    int rank_;
    std::int64_t step_;
};

/// Another rank failed first; this rank only stops. Never printed as a cause.
class AbortedError : public Error {
  public:
    using Error::Error;
};

/// A mistake of the user. Exit code 2. `what()` is the complete text to print, possibly of several lines.
class UserError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

namespace detail {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line,
                                   const std::string& values);
}

}  // namespace moesaic

/// Our own mistake: aborts with the expression and the values that broke it, e.g.
/// `MOESAIC_ASSERT(a == b, "a {} b {}", a, b)`. Always compiled in: use it where it costs nothing.
#define MOESAIC_ASSERT(condition, ...)                                                                     \
    do {                                                                                                   \
        if (!(condition))                                                                                  \
            ::moesaic::detail::assertion_failed(#condition, __FILE__, __LINE__, fmt::format(__VA_ARGS__)); \
    } while (false)

/// As MOESAIC_ASSERT, for checks that cost time (data scans, agreement between ranks); on in dev, asan and
/// tsan presets.
#define MOESAIC_ASSERT_HEAVY(condition, ...)                                               \
    do {                                                                                   \
        if constexpr (::moesaic::kHeavyAssertions) MOESAIC_ASSERT(condition, __VA_ARGS__); \
    } while (false)
