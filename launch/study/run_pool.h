// Commands as processes of their own, several at a time.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace moesaic {

struct PoolJob {
    std::vector<std::string> words;
    std::string log;  ///< file for both of its outputs
};

/// Runs all of them, at most `at_once` at a time, and calls `ended(index, code)` as each ends (128 + n after
/// death by signal n). They get SIGTERM when this process dies, however it does. False where SIGTERM or
/// SIGINT came before all had ended: those under way are then ended and waited for, as they are when an
/// exception leaves.
bool run_pool(const std::vector<PoolJob>& jobs, long at_once,
              const std::function<void(std::size_t, int)>& ended);

}  // namespace moesaic
