#include "runtime/metrics/sink.h"

#include <array>

#include "runtime/base/error.h"
#include "runtime/metrics/console_sink.h"
#include "runtime/metrics/csv_sink.h"
#include "runtime/metrics/jsonl_sink.h"
#include "runtime/metrics/prometheus_sink.h"
#include "runtime/metrics/tensorboard_sink.h"

namespace moesaic {

namespace {

template <class Kind>
std::unique_ptr<Sink> make(const SinkOptions& options) {
    return std::make_unique<Kind>(options);
}

struct NamedSink {
    std::string_view name;
    std::unique_ptr<Sink> (*make)(const SinkOptions&);
};
constexpr std::array<NamedSink, 5> kSinks{{{"console", make<ConsoleSink>},
                                           {"csv", make<CsvSink>},
                                           {"jsonl", make<JsonlSink>},
                                           {"prometheus", make<PrometheusSink>},
                                           {"tensorboard", make<TensorboardSink>}}};

}  // namespace

std::vector<std::string_view> sink_names() {
    std::vector<std::string_view> names;
    names.reserve(kSinks.size());
    for (const NamedSink& sink : kSinks) names.push_back(sink.name);
    return names;
}

std::unique_ptr<Sink> make_sink(std::string_view name, const SinkOptions& options) {
    std::string known;
    for (const NamedSink& sink : kSinks) {
        if (sink.name == name) return sink.make(options);
        known += fmt::format("{}{}", known.empty() ? "" : ", ", sink.name);
    }
    throw UserError(fmt::format("metrics.sinks: there is no sink \"{}\"; there are {}", name, known));
}

SinkGroup::SinkGroup(const std::vector<std::string>& names, const SinkOptions& options) {
    for (const std::string& name : names) add(make_sink(name, options));
}

}  // namespace moesaic
