#include "runtime/base/log.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

struct LogState {
    std::mutex mutex;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{nullptr, &std::fclose};
};

LogState& state() {
    static LogState instance;
    return instance;
}

LogLevel threshold() {
    static const LogLevel level = [] {
        const char* text = std::getenv("MOESAIC_LOG");
        const std::string_view name = text ? text : "info";
        if (name == "debug") return LogLevel::debug;
        if (name == "warn") return LogLevel::warn;
        if (name == "error") return LogLevel::error;
        return LogLevel::info;
    }();
    return level;
}

}  // namespace

void log_message(LogLevel level, std::string_view text) {
    const RunContext& context = run_context();
    if (level < threshold() || (level < LogLevel::warn && context.rank != 0)) return;
    std::string prefix = "[moesaic] ";
    if (context.rank != 0) {
        prefix = context.step < 0
                     ? fmt::format("[r{}/{}] ", context.rank, context.world_size)
                     : fmt::format("[r{}/{} s{}] ", context.rank, context.world_size, context.step);
    }
    if (level == LogLevel::warn) prefix += "warning: ";
    if (level == LogLevel::error) prefix += "error: ";
    const std::string line = fmt::format("{}{}\n", prefix, text);
    const std::lock_guard lock(state().mutex);
    std::fputs(line.c_str(), stderr);
    if (state().file) {
        std::fputs(line.c_str(), state().file.get());
        std::fflush(state().file.get());
    }
}

void log_to_file(const std::string& path) {
    const std::lock_guard lock(state().mutex);
    state().file.reset(path.empty() ? nullptr : std::fopen(path.c_str(), "a"));
}

}  // namespace moesaic
