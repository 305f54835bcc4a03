#include "runtime/machine/programs.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <thread>

#include "runtime/machine/text_file.h"

extern char** environ;  // NOLINT: POSIX names it so

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

/// Reads until the other end closes or the time is up; whether it closed.
bool read_until(int pipe, Clock::time_point deadline, std::string& text) {
    constexpr std::size_t kMost = 64 << 10;
    while (true) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) return false;
        pollfd waiting{pipe, POLLIN, 0};
        if (::poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
        std::array<char, 4096> buffer{};
        const ssize_t count = ::read(pipe, buffer.data(), buffer.size());
        if (count <= 0) return count == 0;
        if (text.size() < kMost) text.append(buffer.data(), static_cast<std::size_t>(count));
    }
}

/// Waits for the process until the time is up, then kills it; whether it ended by itself.
bool reap(pid_t process, Clock::time_point deadline) {
    while (::waitpid(process, nullptr, WNOHANG) == 0) {
        if (Clock::now() > deadline) {
            ::kill(process, SIGKILL);
            ::waitpid(process, nullptr, 0);
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

}  // namespace

std::optional<std::string> find_program(const std::string& name, const std::string& path) {
    for (const std::string& folder : split_text(path, ':')) {
        const std::string file = folder + "/" + name;
        std::error_code error;
        if (::access(file.c_str(), X_OK) == 0 && !std::filesystem::is_directory(file, error)) return file;
    }
    return std::nullopt;
}

std::string search_path() {
    const char* const path = std::getenv("PATH");
    return path ? path : "";
}

std::optional<std::string> output_of(const std::vector<std::string>& words, double timeout_seconds) {
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                             std::chrono::duration<double>(timeout_seconds));
    std::array<int, 2> ends{};
    if (words.empty() || ::pipe2(ends.data(), O_CLOEXEC) != 0) return std::nullopt;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    pid_t process = -1;
    const int failed = ::posix_spawn(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    std::string text;
    bool ended = false;
    if (failed == 0) {
        const bool closed = read_until(ends[0], deadline, text);
        ended = reap(process, closed ? deadline : Clock::now()) && closed;
    }
    ::close(ends[0]);
    return ended ? std::optional(trimmed(text)) : std::nullopt;
}

std::string version_in(const std::string& text) {
    static const std::regex number(R"((\d+\.\d+(\.\d+)?))");
    std::smatch match;
    return std::regex_search(text, match, number) ? match[1].str() : "";
}

}  // namespace moesaic
