// Where time goes: sums by phase always, spans in a traced step, and streams of devices left alone.
#include "runtime/step_timeline.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace moesaic {
namespace {

void pass_time() {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

double of(const StepTimeline::Seconds& seconds, WorkPhase phase) {
    return seconds[static_cast<std::size_t>(phase)];
}

/// As a GPU's stream: host work on it waits for the device.
class DeviceStream final : public HostStream {
  public:
    std::string_view name() const override { return "device"; }
    bool inline_execution() const override { return false; }
    bool of_device() const override { return true; }
    void run(std::function<void()> work) override {
        synchronize();
        work();
    }
    Event record() override { return {}; }
    void wait(const Event&) override {}
    void synchronize() override { ++synchronized; }
    int synchronized = 0;
};

TEST(StepTimeline, SumsPhasesAndKeepsNoSpansUnlessTraced) {
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("compute");
    StepTimeline timeline;
    for (int i = 0; i < 2; ++i) {
        const WorkScope scope(&timeline, *stream, WorkPhase::experts, 1);
        pass_time();
    }
    const StepTimeline::Seconds seconds = timeline.take_seconds();
    EXPECT_GE(of(seconds, WorkPhase::experts), 0.004);
    EXPECT_EQ(of(seconds, WorkPhase::attention), 0);
    EXPECT_EQ(of(timeline.take_seconds(), WorkPhase::experts), 0) << "they were taken";
    EXPECT_TRUE(timeline.take_spans().empty());
}

TEST(StepTimeline, ATracedStepHasEverySpan) {
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("compute");
    StepTimeline timeline;
    timeline.trace();
    { const WorkScope scope(&timeline, *stream, WorkPhase::router, 3); }
    { const WorkScope scope(&timeline, *stream, WorkPhase::head, -1, true); }
    const auto spans = timeline.take_spans();
    ASSERT_EQ(spans.size(), 2u);
    EXPECT_EQ(spans[0].phase, WorkPhase::router);
    EXPECT_EQ(spans[0].layer, 3);
    EXPECT_TRUE(spans[1].backward);
    EXPECT_LE(spans[0].ended, spans[1].began);
    EXPECT_FALSE(timeline.tracing());
}

TEST(StepTimeline, TimesAreTakenWhenTheStreamGetsThere) {
    HostStreamScheduler scheduler(StreamMode::threads);
    const auto stream = scheduler.make_stream("compute");
    StepTimeline timeline;
    const double before = StepTimeline::now();
    {
        const WorkScope scope(&timeline, *stream, WorkPhase::attention);
        run_on_host(*stream, pass_time);
    }
    const double enqueued = StepTimeline::now() - before;
    stream->synchronize();
    EXPECT_GE(of(timeline.take_seconds(), WorkPhase::attention), 0.002);
    EXPECT_LT(enqueued, 1) << "and nobody waited for it";
}

TEST(StepTimeline, ADevicesStreamIsWaitedForInATracedStepAlone) {
    DeviceStream stream;
    StepTimeline timeline;
    { const WorkScope scope(&timeline, stream, WorkPhase::experts); }
    EXPECT_EQ(stream.synchronized, 0);
    EXPECT_EQ(of(timeline.take_seconds(), WorkPhase::experts), 0);
    timeline.trace();
    { const WorkScope scope(&timeline, stream, WorkPhase::experts); }
    EXPECT_EQ(stream.synchronized, 2);
    EXPECT_EQ(timeline.take_spans().size(), 1u);
}

TEST(StepTimeline, NoTimelineIsNoTrouble) {
    DeviceStream stream;
    { const WorkScope scope(nullptr, stream, WorkPhase::experts); }
    EXPECT_EQ(stream.synchronized, 0);
}

}  // namespace
}  // namespace moesaic
