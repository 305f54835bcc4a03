#include "launch/study/run_pool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "runtime/base/error.h"

extern char** environ;  // NOLINT: POSIX names it so

namespace moesaic {

namespace {

int opened(const char* path, int flags) {
    const int descriptor = ::open(path, flags | O_CLOEXEC, 0644);
    if (descriptor < 0) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
    return descriptor;
}

/// What the child does between fork and exec: calls that a signal handler may make, nothing else.
[[noreturn]] void become(char* const* arguments, int input, int output, int report, pid_t parent) {
    for (const int number : {SIGTERM, SIGINT})
        ::signal(number, SIG_DFL);  // the study's handlers only note them
    // When the study dies, by SIGKILL too, its runs are asked to stop; they would go on alone, and a second
    // study would write beside them.
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);  // it died before
    if (::dup2(input, STDIN_FILENO) >= 0 && ::dup2(output, STDOUT_FILENO) >= 0 &&
        ::dup2(output, STDERR_FILENO) >= 0)
        ::execve(arguments[0], arguments, environ);
    const int code = errno;
    (void)!::write(report, &code, sizeof code);
    ::_exit(127);
}

pid_t start(const PoolJob& job) {
    std::vector<char*> arguments;
    for (const std::string& word : job.words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const int input = opened("/dev/null", O_RDONLY),
              output = opened(job.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC);
    std::array<int, 2> report{};  // closes itself when exec succeeds
    if (::pipe2(report.data(), O_CLOEXEC) != 0) throw Error(fmt::format("no pipe: {}", std::strerror(errno)));
    const pid_t parent = ::getpid(), process = ::fork();
    if (process == 0) become(arguments.data(), input, output, report[1], parent);
    int failed = process < 0 ? errno : 0;
    for (const int descriptor : {input, output, report[1]}) ::close(descriptor);
    if (process > 0 && ::read(report[0], &failed, sizeof failed) > 0) ::waitpid(process, nullptr, 0);
    ::close(report[0]);
    if (failed != 0)
        throw Error(fmt::format("{}: cannot be started: {}", job.words[0], std::strerror(failed)));
    return process;
}

volatile std::sig_atomic_t stop_asked = 0;

/// While it lives SIGTERM and SIGINT are noted instead of ending the process, whose children would go on
/// alone.
class StopSignals {
  public:
    StopSignals() {
        stop_asked = 0;
        struct sigaction note {};
        note.sa_handler = [](int) { stop_asked = 1; };
        ::sigaction(SIGTERM, &note, &before_[0]);
        ::sigaction(SIGINT, &note, &before_[1]);
    }
    StopSignals(const StopSignals&) = delete;
    StopSignals& operator=(const StopSignals&) = delete;
    ~StopSignals() {
        ::sigaction(SIGTERM, &before_[0], nullptr);
        ::sigaction(SIGINT, &before_[1], nullptr);
    }

  private:
    struct sigaction before_[2]{};
};

/// The processes under way; ends them when it goes.
class Children {
  public:
    Children() = default;
    Children(const Children&) = delete;
    Children& operator=(const Children&) = delete;
    ~Children() {
        for (const auto& [process, index] : running_) ::kill(process, SIGTERM);
        for (const auto& [process, index] : running_) ::waitpid(process, nullptr, 0);
    }
    void start(const PoolJob& job, std::size_t index) { running_[moesaic::start(job)] = index; }
    [[nodiscard]] std::size_t count() const { return running_.size(); }
    /// Waits for one of them; its index and code. Empty when asked to stop.
    std::optional<std::pair<std::size_t, int>> wait() {
        while (stop_asked == 0) {
            for (const auto& [process, index] : running_) {
                int status = 0;
                if (::waitpid(process, &status, WNOHANG) == 0) continue;
                const std::pair ended(index,
                                      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
                running_.erase(process);
                return ended;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        return std::nullopt;
    }

  private:
    std::map<pid_t, std::size_t> running_;
};

}  // namespace

bool run_pool(const std::vector<PoolJob>& jobs, long at_once,
              const std::function<void(std::size_t, int)>& ended) {
    const StopSignals signals;
    Children children;
    std::size_t next = 0;
    while (next < jobs.size() || children.count() > 0) {
        while (next < jobs.size() && children.count() < static_cast<std::size_t>(std::max(1L, at_once))) {
            children.start(jobs[next], next);
            ++next;
        }
        const auto one = children.wait();
        if (!one) return false;
        ended(one->first, one->second);
    }
    return true;
}

}  // namespace moesaic
