#include "runtime/base/error.h"

#include <cstdio>
#include <cstdlib>

#include "runtime/base/run_context.h"

namespace moesaic {

RunContext& run_context() noexcept {
    thread_local RunContext context;
    return context;
}

Error::Error(const std::string& message)
    : std::runtime_error(message), rank_(run_context().rank), step_(run_context().step) {}

void detail::assertion_failed(const char* expression, const char* file, int line, const std::string& values) {
    const RunContext& context = run_context();
    const std::string text =
        fmt::format("moesaic: defect: {}:{}: '{}' does not hold: {} (rank {}, step {})\n", file, line,
                    expression, values, context.rank, context.step);
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
    std::abort();
}

}  // namespace moesaic
