// Where the time of a rank's own work goes, in every step in sums, and in a traced one span by span.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <string_view>
#include <vector>

#include "runtime/base/trace_range.h"
#include "runtime/stream.h"

namespace moesaic {

/// Parts of a step's own work, in which ranks are compared; waiting and the exchange are none of it.
enum class WorkPhase : std::uint8_t { data, attention, router, experts, feed_forward, head, update, count };
inline constexpr std::size_t kWorkPhases = static_cast<std::size_t>(WorkPhase::count);
[[nodiscard]] std::string_view name_of(WorkPhase phase);

/// A stretch of one phase on the stream that computes; seconds of the steady clock.
struct WorkSpan {
    WorkPhase phase = WorkPhase::data;
    int layer = -1;
    bool backward = false;
    double began = 0, ended = 0;
};

/// Times are taken when the stream gets there, so that they hold for streams on threads of their own too. A
/// device's stream is not watched but in a traced step, for which it is waited for at every end of a span.
/// All on one stream, and read while it is idle.
class StepTimeline {
  public:
    using Seconds = std::array<double, kWorkPhases>;

    void begin(Stream& stream, WorkPhase phase, int layer, bool backward);
    void end(Stream& stream);

    /// Of each phase since the last call.
    [[nodiscard]] Seconds take_seconds();
    /// From now on spans are kept.
    void trace() { tracing_ = true; }
    [[nodiscard]] bool tracing() const { return tracing_; }
    /// Those of the traced step; none are kept from now on.
    [[nodiscard]] std::vector<WorkSpan> take_spans();

    [[nodiscard]] static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

  private:
    struct Mark {
        int layer;
        WorkPhase phase;
        bool backward;
    };
    WorkSpan open_;
    Seconds seconds_{};
    bool tracing_ = false;
    std::vector<WorkSpan> spans_;

    void open(Mark mark);
    void close();
};

/// One span, from here to the end of the scope, and a profiler's range. Without either it costs two
/// comparisons.
class WorkScope {
  public:
    WorkScope(StepTimeline* timeline, Stream& stream, WorkPhase phase, int layer = -1, bool backward = false)
        : range_(name_of(phase).data()), timeline_(timeline), stream_(stream) {
        if (timeline_) timeline_->begin(stream_, phase, layer, backward);
    }
    ~WorkScope() { end(); }
    /// Before the end of the scope.
    void end() {
        if (timeline_) timeline_->end(stream_);
        timeline_ = nullptr;
        range_.end();
    }
    WorkScope(const WorkScope&) = delete;
    WorkScope& operator=(const WorkScope&) = delete;

  private:
    TraceRange range_;
    StepTimeline* timeline_;
    Stream& stream_;
};

}  // namespace moesaic
