// The step records as a table, in the run folder's metrics.csv.
#pragma once

#include <optional>

#include "runtime/metrics/line_file.h"
#include "runtime/metrics/sink.h"

namespace moesaic {

/// One row per step record with its fields, then heldout_loss, train_probe_loss and gap of the evaluation
/// after that step (empty elsewhere). So a row is written when the next one begins, at flush() and at the
/// end. An evaluation without a step record of its step gets a row of its own.
class CsvSink : public Sink {
  public:
    explicit CsvSink(const SinkOptions& options);
    ~CsvSink() override;

    void write(const StepRecord& record) override;
    void write(const EvalRecord& record) override;
    void write(const EndRecord&) override { write_pending(); }
    void flush() override;

  private:
    struct Row {
        i64 step = 0;
        std::optional<StepRecord> fields;
        EvalRecord evaluation;
    };
    LineFile file_;
    std::optional<Row> pending_;

    void write_pending();
};

}  // namespace moesaic
