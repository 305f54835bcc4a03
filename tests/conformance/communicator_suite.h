// The checks that every communicator passes, whatever carries its messages.
#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"

namespace moesaic::conformance {

/// What went wrong on this rank. A check always finishes its collectives, so that the next one can run.
class Failures {
  public:
    template <class... Args>
    void expect(bool holds, fmt::format_string<Args...> format, Args&&... args) {
        if (!holds && lines_.size() < 20) lines_.push_back(fmt::format(format, std::forward<Args>(args)...));
    }
    [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }

  private:
    std::vector<std::string> lines_;
};

struct CommunicatorCheck {
    std::string_view name;
    /// Collective over the communicator.
    void (*run)(Communicator& world, StreamMode mode, Failures& failures);
};

[[nodiscard]] std::span<const CommunicatorCheck> communicator_checks();

}  // namespace moesaic::conformance
