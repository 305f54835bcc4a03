// Where a run's records go: the interface, and the table of sinks by name.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/metrics/records.h"

namespace moesaic {

/// Takes the records of one run, on rank 0. A sink ignores the events it has no use for.
class Sink {
  public:
    Sink() = default;
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;
    virtual ~Sink() = default;

    virtual void write(const RunRecord&) {}
    virtual void write(const StepRecord&) {}
    virtual void write(const ExpertsRecord&) {}
    virtual void write(const RouterHealthRecord&) {}
    virtual void write(const EvalRecord&) {}
    virtual void write(const AlarmRecord&) {}
    virtual void write(const PlacementRecord&) {}
    virtual void write(const CheckpointRecord&) {}
    virtual void write(const EndRecord&) {}
    /// Brings everything written to disk; call it before each checkpoint's manifest.
    virtual void flush() {}
};

struct SinkOptions {
    std::string folder;                                ///< the run folder; it exists
    std::string name;                                  ///< of the run, for the console's header
    bool resume = false;                               ///< append to the files that are there
    i64 first_step = 1;                                ///< that this process will do; later on after a resume
    i64 steps = 0;                                     ///< of the whole run
    std::FILE* console = stdout;                       ///< where the console sink writes
    std::string row_name = "tok";                      ///< what a second's work is counted in
    std::function<double()> seconds;                   ///< a clock; empty takes the system's
    std::string prometheus_listen = "127.0.0.1:9464";  ///< address:port
};

/// "console", "csv", "jsonl", "prometheus", "tensorboard".
[[nodiscard]] std::vector<std::string_view> sink_names();
/// An unknown name is a UserError that lists the known ones.
[[nodiscard]] std::unique_ptr<Sink> make_sink(std::string_view name, const SinkOptions& options);

/// Several sinks as one.
class SinkGroup : public Sink {
  public:
    SinkGroup() = default;
    SinkGroup(const std::vector<std::string>& names, const SinkOptions& options);
    void add(std::unique_ptr<Sink> sink) { sinks_.push_back(std::move(sink)); }

    void write(const RunRecord& record) override { write_all(record); }
    void write(const StepRecord& record) override { write_all(record); }
    void write(const ExpertsRecord& record) override { write_all(record); }
    void write(const RouterHealthRecord& record) override { write_all(record); }
    void write(const EvalRecord& record) override { write_all(record); }
    void write(const AlarmRecord& record) override { write_all(record); }
    void write(const PlacementRecord& record) override { write_all(record); }
    void write(const CheckpointRecord& record) override { write_all(record); }
    void write(const EndRecord& record) override { write_all(record); }
    void flush() override {
        for (const auto& sink : sinks_) sink->flush();
    }

  private:
    std::vector<std::unique_ptr<Sink>> sinks_;

    template <class Record>
    void write_all(const Record& record) {
        for (const auto& sink : sinks_) sink->write(record);
    }
};

}  // namespace moesaic
