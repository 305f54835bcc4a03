// The checks that every communicator passes, whatever carries its messages.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <memory>
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

/// One rank's streams, and whatever runs them.
struct Streams {
    std::shared_ptr<void> scheduler;
    std::unique_ptr<Stream> exchange, compute;
};

/// What a communicator works with.
struct Surroundings {
    std::function<Streams(const Communicator& world)> make_streams;
    Device memory = Device::cpu;  ///< of the rows that travel; the host can read it
};
/// With another shuffle on every rank.
[[nodiscard]] Surroundings on_host(StreamMode mode);

struct CommunicatorCheck {
    std::string_view name;
    /// Collective over the communicator.
    void (*run)(Communicator& world, const Surroundings& at, Failures& failures);
};

[[nodiscard]] std::span<const CommunicatorCheck> communicator_checks();

}  // namespace moesaic::conformance
