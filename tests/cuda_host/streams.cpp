#include "tests/cuda_host/streams.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/memory.h"

namespace cuda_host {

Scheduler& Scheduler::instance() {
    static Scheduler scheduler;
    return scheduler;
}

void Scheduler::reset(const Settings& wanted) {
    const std::scoped_lock lock(mutex);
    for (const auto& stream : streams_) stream->items.clear();
    for (const auto& event : events_) event->completed = event->recorded;
    settings = wanted;
    finding.clear();
    kernels = 0;
    random_.seed(wanted.seed);
    BlockExecutor::instance().set_seed(wanted.seed);
}

EmulatedStream* Scheduler::make_stream() {
    streams_.push_back(std::make_unique<EmulatedStream>());
    streams_.back()->number = ++made_;
    return streams_.back().get();
}

void Scheduler::destroy(EmulatedStream* stream) {
    std::erase_if(streams_, [=](const auto& one) { return one.get() == stream; });
}

EmulatedEvent* Scheduler::make_event() {
    events_.push_back(std::make_unique<EmulatedEvent>());
    return events_.back().get();
}

cudaError_t Scheduler::find(const std::string& what) {
    if (finding.empty()) finding = what;
    return cudaErrorLaunchFailure;
}

EmulatedStream* Scheduler::known(cudaStream_t stream) {
    for (const auto& one : streams_)
        if (one.get() == reinterpret_cast<EmulatedStream*>(stream)) return one.get();
    find(stream ? "a stream is used that does not exist" : "the null stream is used");
    return nullptr;
}

cudaError_t Scheduler::enqueue(cudaStream_t stream, EmulatedStream::Item item) {
    EmulatedStream* const queue = known(stream);
    if (!queue) return cudaErrorInvalidResourceHandle;
    queue->items.push_back(std::move(item));
    return finding.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t Scheduler::record(cudaEvent_t event, cudaStream_t stream) {
    auto* const recorded = reinterpret_cast<EmulatedEvent*>(event);
    return enqueue(stream, {.work = {}, .record = ++recorded->recorded, .completes = recorded});
}

cudaError_t Scheduler::wait(cudaStream_t stream, cudaEvent_t event) {
    auto* const awaited = reinterpret_cast<EmulatedEvent*>(event);
    if (awaited->recorded == 0)
        return find("a stream waits for an event that was never recorded: no wait at all");
    return enqueue(stream, {.work = {}, .waits_for = awaited, .record = awaited->recorded});
}

EmulatedStream* Scheduler::choose(EmulatedStream* awaited) {
    if (settings.seed == 0 && awaited->runnable()) return awaited;
    std::vector<EmulatedStream*> ready;
    for (const auto& stream : streams_)
        if (stream->runnable()) ready.push_back(stream.get());
    if (ready.empty()) return nullptr;
    return settings.seed <= 1 ? ready.back() : ready[random_() % ready.size()];
}

void Scheduler::run_head(EmulatedStream& stream) {
    const EmulatedStream::Item item = std::move(stream.items.front());
    stream.items.pop_front();
    try {
        if (item.work && finding.empty()) item.work();
    } catch (const std::exception& fault) {
        find(fault.what());
    }
    if (item.completes) item.completes->completed = std::max(item.completes->completed, item.record);
}

cudaError_t Scheduler::run_until_empty(cudaStream_t stream) {
    EmulatedStream* const awaited = known(stream);
    if (!awaited) return cudaErrorInvalidResourceHandle;
    while (!awaited->items.empty()) {
        EmulatedStream* const next = choose(awaited);
        if (!next)
            return find(fmt::format("streams wait for each other in a circle; awaited is stream {}",
                                    awaited->number));
        run_head(*next);
    }
    return finding.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

void reset(const Settings& settings) {
    Scheduler::instance().reset(settings);
}
std::string first_finding() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return Scheduler::instance().finding;
}
std::int64_t kernels_run() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return Scheduler::instance().kernels;
}
std::int64_t live_allocations() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return static_cast<std::int64_t>(DeviceMemory::instance().blocks());
}

void launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
            std::function<void()> thread) {
    Scheduler& scheduler = Scheduler::instance();
    const std::scoped_lock lock(scheduler.mutex);
    scheduler.enqueue(
        stream, {.work = [=, &scheduler, run = Launch{kernel, grid, block, shared_bytes, std::move(thread)}] {
            ++scheduler.kernels;
            BlockExecutor::instance().run(run);
        }});
}

}  // namespace cuda_host
