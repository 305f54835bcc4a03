// A window over memory of this process: one rank, ranks as threads, and dry runs.
#pragma once

#include <functional>
#include <memory>

#include "comm/shared_window.h"

namespace moesaic {

/// A window of `ranks` segments over one block that its ranks hold together.
class ProcessWindow final : public SharedWindow {
  public:
    using Memory = std::shared_ptr<std::byte>;
    struct Waiting {
        std::function<void()> poll = [] {};
        bool may_spin = true;
    };

    ProcessWindow(Memory memory, i64 segment_bytes, Waiting waiting)
        : SharedWindow(memory.get(), segment_bytes),
          memory_(std::move(memory)),
          waiting_(std::move(waiting)) {}

    void poll() override { waiting_.poll(); }
    [[nodiscard]] bool may_spin() const override { return waiting_.may_spin; }

    /// Untouched memory, which the first to write places near itself.
    [[nodiscard]] static Memory allocate(i64 bytes);
    /// Memory that costs nothing as long as nobody writes to it.
    [[nodiscard]] static Memory address_space(i64 bytes);

  private:
    Memory memory_;
    Waiting waiting_;
};

}  // namespace moesaic
