#include "runtime/metrics/tensorboard_sink.h"

#include <fmt/format.h>

#include <array>
#include <concepts>

namespace moesaic {

namespace {

/// Where a field of the step record stands, unless in "train".
struct FieldGroup {
    std::string_view field, group;
};
constexpr std::array kStepGroups{
    FieldGroup{"tokens_per_s", "speed"},
    FieldGroup{"step_ms", "speed"},
    FieldGroup{"exchange_ms", "speed"},
    FieldGroup{"exchange_bytes", "speed"},
    FieldGroup{"flops_utilization", "speed"},
    FieldGroup{"memory_bytes", "speed"},
    FieldGroup{"slowest_rank", "speed"},
    FieldGroup{"slowest_excess_ms", "speed"},
    FieldGroup{"load_max_over_mean", "routing"},
    FieldGroup{"dropped_fraction", "routing"},
    FieldGroup{"rank_load_max_over_mean", "routing"},
};

std::string_view group_of(std::string_view field) {
    for (const FieldGroup& one : kStepGroups) {
        if (one.field == field) return one.group;
    }
    return "train";
}

template <class T>
constexpr bool is_map = requires(const T& value) {
    typename T::mapped_type;
};

/// Adds whatever a field has to show as curves, so that new fields of records show up by themselves.
struct FieldCurves {
    EventSummary& summary;

    void add(const std::string& tag, double value) const { summary.scalar(tag, value); }
    void add(const std::string& tag, i64 value) const { summary.scalar(tag, static_cast<double>(value)); }
    void add(const std::string& tag, const IntervalRecord& value) const { summary.scalar(tag, value.value); }
    void add(const std::string& tag, const BoundResult& value) const { summary.scalar(tag, value.value); }
    template <class T>
    void add(const std::string& tag, const std::optional<T>& value) const {
        if (value) add(tag, *value);
    }
    template <class T>
    void add(const std::string& tag, const std::map<std::string, T>& values) const {
        for (const auto& [name, value] : values) add(fmt::format("{}/{}", tag, name), value);
    }
    void add(const std::string&, const std::string&) const {}
    template <class T>
    void add(const std::string&, const std::vector<T>&) const {}

    /// Of all fields but the step, each in the group that `group` names; a map is a group of its own.
    template <class Record, class Group>
    void add_fields(const Record& record, const Group& group) const {
        record.fields([&]<class T>(std::string_view name, const T& value) {
            if constexpr (is_map<T>)
                add(std::string(name), value);
            else if (name != "step")
                add(fmt::format("{}/{}", group(name), name), value);
        });
    }
};

}  // namespace

TensorboardSink::TensorboardSink(const SinkOptions& options)
    : file_(options.folder + "/tensorboard", options.resume ? options.first_step : 1),
      first_step_(options.first_step) {}

void TensorboardSink::write(const RunRecord& record) {
    EventSummary summary;
    summary.text("run/config", fmt::format("```yaml\n{}```\n", record.config));
    summary.text("run/layout",
                 fmt::format("Moesaic {} ({}), {} ranks: expert parallel {}, expert tensor {}, data parallel "
                             "{}; {} on {}; {} parameters, {} active",
                             record.version, record.commit, record.world_size, record.expert_parallel,
                             record.expert_tensor, record.data_parallel, record.device, record.host,
                             record.parameters, record.active_parameters));
    file_.add(first_step_, summary);
}

void TensorboardSink::write(const StepRecord& record) {
    EventSummary summary;
    FieldCurves{summary}.add_fields(record, group_of);
    file_.add(record.step, summary);
}

void TensorboardSink::write(const ExpertsRecord& record) {
    EventSummary summary;
    const FieldCurves curves{summary};
    record.fields([&](std::string_view name, const auto& value) {
        if (name != "step" && name != "layer")
            curves.add(fmt::format("{}/layer_{:02}", name, record.layer), value);
    });
    summary.bars(fmt::format("load/layer_{:02}", record.layer), record.load);
    file_.add(record.step, summary);
}

void TensorboardSink::write(const EvalRecord& record) {
    EventSummary summary;
    FieldCurves{summary}.add_fields(record, [](std::string_view) { return "eval"; });
    for (const RoutingChange& change : record.routing_changed)
        summary.scalar(fmt::format("routing_changed/layer_{:02}", change.layer), change.share);
    file_.add(record.step, summary);
}

void TensorboardSink::write(const AlarmRecord& record) {
    EventSummary summary;
    summary.text("run/alarms", fmt::format("**{}** {}", record.kind, record.message));
    file_.add(record.step, summary);
}

}  // namespace moesaic
