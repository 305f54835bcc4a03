// A run's newest numbers as a page that Prometheus fetches.
#pragma once

#include "runtime/metrics/sink.h"

namespace moesaic {

/// Listens on SinkOptions::prometheus_listen, which is of the machine of rank 0, for GET /metrics until the
/// run ends. Names begin with "moesaic_"; every one carries the label run. A build without prometheus-cpp has
/// a stub, which throws UserError, as an address does that cannot be listened on.
class PrometheusSink : public Sink {
  public:
    explicit PrometheusSink(const SinkOptions& options);
    ~PrometheusSink() override;

    void write(const RunRecord& record) override;
    void write(const StepRecord& record) override;
    void write(const ExpertsRecord& record) override;
    void write(const EvalRecord& record) override;
    void write(const AlarmRecord& record) override;
    void write(const CheckpointRecord& record) override;

    [[nodiscard]] int port() const;

  private:
    struct Page;
    std::unique_ptr<Page> page_;
};

}  // namespace moesaic
