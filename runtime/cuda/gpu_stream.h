// A GPU's stream as others than its back end see it, such as a communicator in a module of its own.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "runtime/stream.h"

namespace moesaic {

/// Watches what a stream waits for that may never come.
class StreamGuard {
  public:
    virtual ~StreamGuard() = default;
    /// Throws Error where the host need not wait any longer.
    virtual void poll() = 0;
};

// No function here is defined elsewhere: so both modules have the class's type, and dynamic_cast between them
// works by its name.
class GpuStream : public HostStream {
  public:
    [[nodiscard]] bool of_device() const override { return true; }
    [[nodiscard]] virtual cudaStream_t handle() const = 0;
    /// From now on synchronize asks `guard` again and again, on this stream and on those that wait for it.
    virtual void set_guard(std::shared_ptr<StreamGuard> guard) = 0;
};

}  // namespace moesaic
