#include "launch/study/run_pool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "runtime/base/error.h"

extern char** environ;  // NOLINT: POSIX names it so

namespace moesaic {

namespace {

pid_t start(const PoolJob& job) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, job.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    std::vector<char*> arguments;
    for (const std::string& word : job.words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    pid_t process = -1;
    const int failed = ::posix_spawn(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0)
        throw Error(fmt::format("{}: cannot be started: {}", job.words[0], std::strerror(failed)));
    return process;
}

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
    /// Waits for one of ours; its index and code.
    std::pair<std::size_t, int> wait() {
        while (true) {
            int status = 0;
            const pid_t process = ::waitpid(-1, &status, 0);
            if (process < 0 && errno == EINTR) continue;
            if (process < 0) throw Error(fmt::format("waiting for a run: {}", std::strerror(errno)));
            const auto found = running_.find(process);
            if (found == running_.end()) continue;
            const std::size_t index = found->second;
            running_.erase(found);
            return {index, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
        }
    }

  private:
    std::map<pid_t, std::size_t> running_;
};

}  // namespace

void run_pool(const std::vector<PoolJob>& jobs, long at_once,
              const std::function<void(std::size_t, int)>& ended) {
    Children children;
    std::size_t next = 0;
    while (next < jobs.size() || children.count() > 0) {
        while (next < jobs.size() && children.count() < static_cast<std::size_t>(std::max(1L, at_once))) {
            children.start(jobs[next], next);
            ++next;
        }
        const auto [index, code] = children.wait();
        ended(index, code);
    }
}

}  // namespace moesaic
