// What stands in for the sink prometheus in a build without prometheus-cpp.
#include "runtime/base/error.h"
#include "runtime/metrics/prometheus_sink.h"

namespace moesaic {

struct PrometheusSink::Page {};

PrometheusSink::PrometheusSink(const SinkOptions&) {
    throw UserError(
        "metrics.sinks: 'prometheus' is not in this build: install prometheus-cpp-dev and build again");
}

PrometheusSink::~PrometheusSink() = default;
int PrometheusSink::port() const {
    return 0;
}
void PrometheusSink::write(const RunRecord&) {}
void PrometheusSink::write(const StepRecord&) {}
void PrometheusSink::write(const ExpertsRecord&) {}
void PrometheusSink::write(const EvalRecord&) {}
void PrometheusSink::write(const AlarmRecord&) {}
void PrometheusSink::write(const CheckpointRecord&) {}

}  // namespace moesaic
