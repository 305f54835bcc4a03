#include "tests/cuda_host/streams.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <regex>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/nccl_ranks.h"

namespace cuda_host {

namespace {

struct KernelName {
    std::string symbol, shown;
};

/// The kernel's symbol, which nvcc's kernel has too, and how reports call it. Kernels that the program does
/// not export go by the text of their launch.
const KernelName& name_of(const void* function, const char* text) {
    static std::map<const void*, KernelName> names;
    const auto [found, fresh] = names.try_emplace(function);
    if (!fresh) return found->second;
    found->second = {"", text};
    Dl_info info{};
    if (!dladdr(function, &info) || !info.dli_sname || info.dli_saddr != function) return found->second;
    found->second.symbol = info.dli_sname;
    int status = 0;
    char* const name = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    if (status == 0) {
        static const std::regex noise(R"(^void |moesaic::kernels::|\(.*)");
        found->second.shown = std::regex_replace(name, noise, "");
    }
    std::free(name);
    return found->second;
}

}  // namespace

Scheduler::Scheduler() {
    random_.seed(settings.seed);
    BlockExecutor::instance().set_seed(settings.seed);
    Checker::activate(settings.check);
}

Scheduler& Scheduler::instance() {
    static Scheduler scheduler;
    return scheduler;
}

void Scheduler::reset(const Settings& wanted) {
    const std::scoped_lock lock(mutex);
    for (const auto& stream : streams_) stream->items.clear();
    for (const auto& event : events_) event->completed = event->recorded;
    settings = wanted;
    Checker::activate(wanted.check);
    finding.clear();
    kernels = gone = staged_bytes = 0;
    waiting_.clear();
    reset_nccl();
    random_.seed(wanted.seed);
    BlockExecutor::instance().set_seed(wanted.seed);
}

bool Scheduler::is_pinned(const void* data, std::size_t bytes) const {
    auto block = pinned.upper_bound(data);
    if (block == pinned.begin()) return false;
    --block;
    const char* const begin = static_cast<const char*>(block->first);
    return static_cast<const char*>(data) + bytes <= begin + block->second;
}

EmulatedStream* Scheduler::make_stream() {
    streams_.push_back(std::make_unique<EmulatedStream>());
    EmulatedStream& stream = *streams_.back();
    stream.number = ++made_;
    if (free_slots_.empty()) {
        free_slots_.push_back(static_cast<std::uint32_t>(last_of_slot_.size()));
        last_of_slot_.push_back(0);
    }
    stream.slot = free_slots_.back();
    free_slots_.pop_back();
    stream.enqueued = last_of_slot_[stream.slot];
    return &stream;
}

void Scheduler::destroy(EmulatedStream* stream) {
    if (!known(reinterpret_cast<cudaStream_t>(stream))) return;
    last_of_slot_[stream->slot] = stream->enqueued;
    free_slots_.push_back(stream->slot);
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
    join(queue->clock, host_clock_);
    item.number = ++queue->enqueued;
    item.clock = queue->clock;
    if (queue->clock.size() <= queue->slot) queue->clock.resize(queue->slot + 1);
    queue->clock[queue->slot] = item.number;
    queue->items.push_back(std::move(item));
    note_progress();
    return finding.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t Scheduler::record(cudaEvent_t event, cudaStream_t stream) {
    auto* const recorded = reinterpret_cast<EmulatedEvent*>(event);
    if (const EmulatedStream* const queue = known(stream)) recorded->clock = queue->clock;
    return enqueue(stream, {.work = {}, .record = ++recorded->recorded, .completes = recorded});
}

cudaError_t Scheduler::wait(cudaStream_t stream, cudaEvent_t event) {
    auto* const awaited = reinterpret_cast<EmulatedEvent*>(event);
    if (awaited->recorded == 0)
        return find("a stream waits for an event that was never recorded: no wait at all");
    if (EmulatedStream* const queue = known(stream)) join(queue->clock, awaited->clock);
    return enqueue(stream, {.work = {}, .waits_for = awaited, .record = awaited->recorded});
}

EmulatedStream* Scheduler::choose(EmulatedStream* awaited) {
    if (settings.seed == 0 && awaited && awaited->runnable()) return awaited;
    std::vector<EmulatedStream*> order, ready;
    for (const auto& stream : streams_) order.push_back(stream.get());
    if (settings.seed == 1) std::ranges::reverse(order);
    if (settings.seed > 1) std::ranges::shuffle(order, random_);  // who tries first to meet others
    for (EmulatedStream* stream : order)
        if (stream->runnable()) ready.push_back(stream);
    if (ready.empty()) return nullptr;
    return settings.seed == 0 ? ready.back() : ready.front();
}

void Scheduler::run_head(EmulatedStream& stream) {
    const EmulatedStream::Item item = std::move(stream.items.front());
    stream.items.pop_front();
    try {
        Checker* const checker = Checker::active();
        if (checker && item.work)
            checker->begin_item(stream.slot, item.number, item.clock,
                                fmt::format("{} in stream {}", item.what, stream.number));
        if (item.work && finding.empty()) item.work();
    } catch (const std::exception& fault) {
        find(fault.what());
    }
    if (item.completes) {
        item.completes->completed = std::max(item.completes->completed, item.record);
        item.completes->when = std::chrono::steady_clock::now();
    }
    note_progress();
}

void Scheduler::note_progress() {
    ++progress_;
    changed_.notify_all();
}

void Scheduler::let_others_work() {
    const auto now = std::chrono::steady_clock::now();
    constexpr int kMany = 50;  // whoever has tried so often does nothing else
    Waiting& mine = waiting_[std::this_thread::get_id()];
    if (mine.progress != progress_ || mine.tries == 0) mine = {progress_, 0, now};
    ++mine.tries;
    const auto stuck = std::ranges::count_if(waiting_, [&](const auto& one) {
        return one.second.progress == progress_ && one.second.tries > kMany;
    });
    const double waited = std::chrono::duration<double>(now - mine.since).count();
    if (stuck >= nccl_ranks() - gone || waited > settings.patience_seconds)
        find("NCCL: all ranks wait: " + nccl_waiting());
    changed_.wait_for(mutex, std::chrono::microseconds(200));
}

cudaError_t Scheduler::run_until_empty(cudaStream_t stream) {
    EmulatedStream* const awaited = known(stream);
    if (!awaited) return cudaErrorInvalidResourceHandle;
    while (!awaited->items.empty() && finding.empty()) {
        if (EmulatedStream* const next = choose(awaited)) {
            run_head(*next);
        } else if (finding.empty() && nccl_ranks() > 0) {
            let_others_work();
        } else {
            find(fmt::format("streams wait for each other in a circle; awaited is stream {}",
                             awaited->number));
        }
    }
    join(host_clock_, awaited->clock);
    if (!finding.empty()) awaited->items.clear();
    return finding.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t Scheduler::query(cudaStream_t stream) {
    EmulatedStream* const awaited = known(stream);
    if (!awaited) return cudaErrorInvalidResourceHandle;
    if (!finding.empty()) return cudaErrorLaunchFailure;
    if (awaited->items.empty()) {
        join(host_clock_, awaited->clock);
        return cudaSuccess;
    }
    if (EmulatedStream* const next = choose(awaited)) {
        run_head(*next);
    } else {
        let_others_work();
    }
    return finding.empty() ? cudaErrorNotReady : cudaErrorLaunchFailure;
}

cudaError_t Scheduler::query(cudaEvent_t event) {
    if (!finding.empty()) return cudaErrorLaunchFailure;
    const auto* const asked = reinterpret_cast<const EmulatedEvent*>(event);
    if (asked->completed < asked->recorded) return cudaErrorNotReady;
    join(host_clock_, asked->clock);
    return cudaSuccess;
}

Settings settings_of_environment() {
    Settings settings;
    settings.check = std::getenv("MOESAIC_EMULATED_CHECK") != nullptr;
    if (const char* const seed = std::getenv("MOESAIC_EMULATED_SEED"))
        settings.seed = std::strtoull(seed, nullptr, 10);
    if (const char* const devices = std::getenv("MOESAIC_EMULATED_GPUS"))
        settings.devices = std::atoi(devices);
    if (const char* const rank = std::getenv("MOESAIC_EMULATED_NCCL_FAILS"))
        settings.failing_nccl_rank = std::atoi(rank);
    return settings;
}

void reset(const Settings& settings) {
    Scheduler::instance().reset(settings);
    (void)cudaGetLastError();  // or the next user of the runtime meets what was left
}
void leave() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    ++Scheduler::instance().gone;
}
std::string first_finding() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return Scheduler::instance().finding;
}
std::int64_t kernels_run() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return Scheduler::instance().kernels;
}
std::int64_t staged_bytes() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return Scheduler::instance().staged_bytes;
}
// Streams run when something waits for them: what is enqueued waits anyway.
Hold::Hold(cudaStream_t) {}
Hold::~Hold() = default;
std::int64_t live_allocations() {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    return static_cast<std::int64_t>(DeviceMemory::instance().blocks() + Scheduler::instance().pinned.size());
}

void launch(const KernelCall& kernel, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream) {
    Scheduler& scheduler = Scheduler::instance();
    const std::scoped_lock lock(scheduler.mutex);
    const KernelName& name = name_of(kernel.function, kernel.text);
    if (const std::string& refused = scheduler.settings.refused_kernel;
        !refused.empty() && name.shown.find(refused) != std::string::npos)
        return keep_error(cudaErrorNoKernelImageForDevice);
    std::function<void()> thread =
        scheduler.settings.translate ? scheduler.settings.translate(name.symbol, kernel.parameters) : nullptr;
    if (!thread) thread = kernel.thread;
    scheduler.enqueue(
        stream, {.work =
                     [&scheduler, run = Launch{name.shown, grid, block, shared_bytes, std::move(thread)}] {
                         ++scheduler.kernels;
                         BlockExecutor::instance().run(run);
                     },
                 .what = name.shown});
}

}  // namespace cuda_host
