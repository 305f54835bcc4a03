// The records as curves for TensorBoard, in the run folder's tensorboard/.
#pragma once

#include "runtime/metrics/event_file.h"
#include "runtime/metrics/sink.h"

namespace moesaic {

/// Every single number of step, experts and eval records under GROUP/FIELD: train, speed, routing; eval, bounds;
/// by layer max_over_mean/layer_03 and the like, with the loads of experts as bars. Configuration and alarms
/// are texts.
class TensorboardSink : public Sink {
  public:
    explicit TensorboardSink(const SinkOptions& options);

    void write(const RunRecord& record) override;
    void write(const StepRecord& record) override;
    void write(const ExpertsRecord& record) override;
    void write(const EvalRecord& record) override;
    void write(const AlarmRecord& record) override;
    void flush() override { file_.sync(); }

  private:
    EventFile file_;
    i64 first_step_;
};

}  // namespace moesaic
