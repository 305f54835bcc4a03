// Named stretches of the host's time, for profilers that show them beside a GPU's work (NVTX).
#pragma once

#include <atomic>

namespace moesaic {

/// Where ranges go: nowhere until a device's module sets one.
struct TraceSink {
    void (*begin)(const char* name);
    void (*end)();
};

namespace detail {
inline std::atomic<const TraceSink*> trace_sink = nullptr;
}

/// `sink` has to live as long as the program.
inline void set_trace_sink(const TraceSink* sink) {
    detail::trace_sink.store(sink, std::memory_order_release);
}

/// From its construction to its end, on this thread. Costs a load where nobody listens.
class TraceRange {
  public:
    explicit TraceRange(const char* name) : sink_(detail::trace_sink.load(std::memory_order_acquire)) {
        if (sink_) sink_->begin(name);
    }
    ~TraceRange() { end(); }
    /// Before the end of the scope.
    void end() {
        if (sink_) sink_->end();
        sink_ = nullptr;
    }
    TraceRange(const TraceRange&) = delete;
    TraceRange& operator=(const TraceRange&) = delete;

  private:
    const TraceSink* sink_;
};

}  // namespace moesaic
