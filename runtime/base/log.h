// Words for people: one line per message with rank and step; numbers go to metrics sinks instead.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace moesaic {

enum class LogLevel { debug, info, warn, error };

/// Prints `[moesaic] text` (rank 0) or `[r3/8 s120] text` (warnings of other ranks) to standard error; info
/// and debug lines of ranks other than 0 are not printed. The level comes from MOESAIC_LOG
/// (debug|info|warn|error; default info).
void log_message(LogLevel level, std::string_view text);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
    log_message(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
    log_message(LogLevel::warn, fmt::format(format, std::forward<Args>(args)...));
}

/// Also append every printed line to this file (the run folder's log.rank0.txt); empty stops that.
void log_to_file(const std::string& path);

}  // namespace moesaic
