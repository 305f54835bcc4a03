#include "runtime/step_timeline.h"

#include <utility>

namespace moesaic {

namespace {

bool of_host(Stream& stream) {
    const auto* const host = dynamic_cast<HostStream*>(&stream);
    return host != nullptr && !host->of_device();
}

}  // namespace

std::string_view name_of(WorkPhase phase) {
    static constexpr std::array<std::string_view, kWorkPhases> kNames{
        "data", "attention", "router", "experts", "feed-forward", "head", "update"};
    return kNames[static_cast<std::size_t>(phase)];
}

void StepTimeline::begin(Stream& stream, WorkPhase phase, int layer, bool backward) {
    const Mark mark{layer, phase, backward};
    if (of_host(stream)) {
        run_on_host(stream, [this, mark] { open(mark); });
    } else if (tracing_) {
        stream.synchronize();
        open(mark);
    }
}

void StepTimeline::end(Stream& stream) {
    if (of_host(stream)) {
        run_on_host(stream, [this] { close(); });
    } else if (tracing_) {
        stream.synchronize();
        close();
    }
}

void StepTimeline::open(Mark mark) {
    open_ = {mark.phase, mark.layer, mark.backward, now(), 0};
}

void StepTimeline::close() {
    open_.ended = now();
    seconds_[static_cast<std::size_t>(open_.phase)] += open_.ended - open_.began;
    if (tracing_) spans_.push_back(open_);
}

StepTimeline::Seconds StepTimeline::take_seconds() {
    return std::exchange(seconds_, {});
}

std::vector<WorkSpan> StepTimeline::take_spans() {
    tracing_ = false;
    return std::exchange(spans_, {});
}

}  // namespace moesaic
