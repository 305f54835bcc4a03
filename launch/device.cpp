#include "launch/device.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

#include "runtime/base/log.h"
#include "runtime/cuda_module.h"

namespace moesaic {

namespace {

std::unique_ptr<Backend> make_host_backend(Communicator& world, StreamMode mode,
                                           const RuntimeOptions& options) {
    return make_cpu_backend(options.threads, mode, options.shuffle_seed + static_cast<u64>(world.rank()));
}

/// Whether asking the module is worth its time: loading cuBLAS takes 0.1 s and 200 MB.
bool may_have_a_gpu() {
    if (std::getenv("MOESAIC_CUDA_MODULE")) return true;
    void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver) dlclose(driver);
    return driver != nullptr;
}

CudaBackendResult try_gpu(const std::string& device, int number) {
    if (device == "auto" && !may_have_a_gpu()) return {nullptr, "this machine has no NVIDIA driver"};
    try {
        return make_cuda_backend(number);
    } catch (const Error& error) {
        return {nullptr, error.what()};
    }
}

/// Collective over `world`. The lowest rank that has none, or -1.
int first_without(Communicator& world, bool has) {
    if (!world.connected()) return has ? -1 : world.rank();
    i64 mine = has ? 1 : 0;
    std::vector<i64> all(static_cast<std::size_t>(world.size()));
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("devices");
    world.all_gather(*stream, view_of(&mine, {1}), view_of(all.data(), {world.size()}),
                     {"devices at start-up"});
    const auto none = std::find(all.begin(), all.end(), 0);
    return none == all.end() ? -1 : static_cast<int>(none - all.begin());
}

void say_once(const std::string& text) {
    static std::once_flag said;
    std::call_once(said, [&] { log_message(LogLevel::info, text); });
}

}  // namespace

std::unique_ptr<Backend> make_device_backend(const Config& config, Communicator& world, StreamMode mode,
                                             const RuntimeOptions& options) {
    const std::string& device = config.run.device;
    const bool on_host = mode == StreamMode::accounting || mode == StreamMode::deferred_shuffled;
    if (device == "cpu" || on_host) return make_host_backend(world, mode, options);
    CudaBackendResult gpu = try_gpu(device, world.topology().local_rank);
    const int without = first_without(world, gpu.backend != nullptr);
    if (without < 0) return std::move(gpu.backend);
    const std::string problem =
        gpu.backend ? fmt::format("rank {} has no CUDA device", without) : gpu.problem;
    if (device == "cuda") throw UserError(fmt::format("run.device: cuda: {}; use run.device: cpu", problem));
    if (world.rank() == 0) say_once(fmt::format("run.device: auto: the CPU, since {}", problem));
    return make_host_backend(world, mode, options);
}

}  // namespace moesaic
