// The records as lines that a person reads while the run goes on.
#pragma once

#include <optional>

#include "runtime/metrics/sink.h"

namespace moesaic {

class ConsoleSink : public Sink {
  public:
    explicit ConsoleSink(const SinkOptions& options);

    void write(const RunRecord& record) override;
    void write(const StepRecord& record) override;
    /// A line where alarms are raised, nothing where all is well; a table at the end of the run.
    void write(const RouterHealthRecord& record) override;
    void write(const EvalRecord& record) override;
    void write(const AlarmRecord& record) override;
    void write(const PlacementRecord& record) override;
    void write(const CheckpointRecord& record) override;
    void write(const EndRecord& record) override;

  private:
    SinkOptions options_;
    EvalRecord evaluation_;  // the latest
    double start_seconds_;   // when first_step_ was done; the time that is left follows from both
    bool said_why_off_ = false;
    std::optional<i64> first_step_;  // 0, or the first one seen after a resume

    void print(std::string line);
    [[nodiscard]] std::string progress(i64 step);
};

namespace detail {
[[nodiscard]] std::string duration_text(double seconds);  ///< "1:12", "2h05m", "3d04h"
[[nodiscard]] std::string compact_text(double number);    ///< "41.2k", "1.30M"
[[nodiscard]] std::string bytes_text(double bytes);       ///< "12.3 MiB"
}  // namespace detail

}  // namespace moesaic
