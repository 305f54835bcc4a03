// Every record as one JSON object a line, in the run folder's metrics.jsonl.
#pragma once

#include "runtime/metrics/json_line.h"
#include "runtime/metrics/line_file.h"
#include "runtime/metrics/sink.h"

namespace moesaic {

/// The record's line in metrics.jsonl.
template <HasFields Record>
[[nodiscard]] std::string json_of(const Record& record) {
    return JsonLine().field("event", Record::kEvent).fields_of(record).text();
}

class JsonlSink : public Sink {
  public:
    explicit JsonlSink(const SinkOptions& options)
        : file_(options.folder + "/metrics.jsonl", options.resume) {}

    void write(const RunRecord& record) override { file_.append(json_of(record)); }
    void write(const StepRecord& record) override { file_.append(json_of(record)); }
    void write(const ExpertsRecord& record) override { file_.append(json_of(record)); }
    void write(const EvalRecord& record) override { file_.append(json_of(record)); }
    void write(const AlarmRecord& record) override { file_.append(json_of(record)); }
    void write(const PlacementRecord& record) override { file_.append(json_of(record)); }
    void write(const CheckpointRecord& record) override { file_.append(json_of(record)); }
    void write(const EndRecord& record) override { file_.append(json_of(record)); }
    void flush() override { file_.sync(); }

  private:
    LineFile file_;
};

}  // namespace moesaic
