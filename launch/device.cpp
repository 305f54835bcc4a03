#include "launch/device.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

#include "comm/nccl_module.h"
#include "comm/rank_agreement.h"
#include "runtime/base/log.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/onednn.h"
#include "runtime/cuda_module.h"

namespace moesaic {

namespace {

void say_once(std::once_flag& said, const std::string& text) {
    std::call_once(said, [&] { log_message(LogLevel::info, text); });
}

/// Collective over `world`: one arithmetic for all ranks, whatever their CPUs.
Bf16Products agreed_bf16_products(const std::string& name, Communicator& world) {
    static std::once_flag said;
    const bool quickest = name == "auto";
    const Bf16Products wanted = quickest ? Bf16Products::tiles : bf16_products_named(name);
    const bool has = cpu_has(wanted);
    const int without = first_rank_without(world, has, {"bf16 products at start-up"});
    if (without < 0) return wanted;
    if (wanted == Bf16Products::pairs)
        throw UserError(
            fmt::format("cpu.bf16_products: pairs: the CPU of rank {} has no AVX512_BF16; use "
                        "widened, which gives the same bits",
                        without));
    if (!quickest && world.rank() == 0)
        say_once(said,
                 fmt::format("cpu.bf16_products: tiles: the CPU of rank {} has no AMX: plain loops give "
                             "its bits, slowly",
                             without));
    if (quickest && has && world.rank() == 0)
        say_once(said, fmt::format("cpu.bf16_products: auto: vectors, since the CPU of rank {} has no AMX",
                                   without));
    return quickest ? quickest_bf16_products(false) : wanted;
}

/// Collective over `world`.
std::unique_ptr<Backend> make_host_backend(const Config& config, Communicator& world, StreamMode mode,
                                           const RuntimeOptions& options) {
    const u64 seed = options.shuffle_seed + static_cast<u64>(world.rank());
    use_bf16_products(agreed_bf16_products(config.cpu.bf16_products, world));
    if (config.cpu.gemm == "own") return make_cpu_backend(options.threads, mode, seed);
    const OneDnnResult& onednn = onednn_library();
    const int without = first_rank_without(world, onednn.library != nullptr, {"oneDNN at start-up"});
    if (without >= 0) {
        throw UserError(fmt::format("cpu.gemm: onednn: {}, or use cpu.gemm: own",
                                    onednn.library
                                        ? fmt::format("rank {} has no oneDNN; install it there", without)
                                        : onednn.problem));
    }
    return make_cpu_backend_on(*onednn.library, options.threads, mode, seed);
}

/// Whether asking the module is worth its time: loading cuBLAS takes 0.1 s and 200 MB.
bool may_have_a_gpu() {
    if (std::getenv(kCudaModuleVariable)) return true;
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

}  // namespace

std::unique_ptr<Backend> make_device_backend(const Config& config, Communicator& world, StreamMode mode,
                                             const RuntimeOptions& options) {
    const std::string& device = config.run.device;
    const bool on_host = mode == StreamMode::accounting || mode == StreamMode::deferred_shuffled;
    if (device == "cpu" || on_host) return make_host_backend(config, world, mode, options);
    CudaBackendResult gpu = try_gpu(device, world.topology().local_rank);
    const int without = first_rank_without(world, gpu.backend != nullptr, {"devices at start-up"});
    if (without < 0) return std::move(gpu.backend);
    const std::string problem =
        gpu.backend ? fmt::format("rank {} has no CUDA device", without) : gpu.problem;
    if (device == "cuda") throw UserError(fmt::format("run.device: cuda: {}; use run.device: cpu", problem));
    static std::once_flag said;
    if (world.rank() == 0) say_once(said, fmt::format("run.device: auto: the CPU, since {}", problem));
    return make_host_backend(config, world, mode, options);
}

bool may_compute_on_gpu(const Config& config) {
    return config.run.device == "cuda" || (config.run.device == "auto" && may_have_a_gpu());
}

std::unique_ptr<Communicator> make_device_world(const Config& config, const Backend& backend,
                                                Communicator& world) {
    const std::string& comm = config.parallel.comm;
    const bool on_gpus = backend.name() == "cuda";
    if (comm == "nccl" && !on_gpus && backend.computes())
        throw UserError(
            "parallel.comm: nccl: moves memory of GPUs, and this run is the CPU's; use auto or mpi");
    if (comm == "mpi" || !on_gpus || world.size() == 1) return nullptr;
    if (config.parallel.checksums) {  // which the host makes of rows that pass it
        if (comm == "nccl")
            throw UserError("parallel.checksums: rows that NCCL moves have none; use parallel.comm: mpi");
        return nullptr;
    }
    NcclResult nccl = make_nccl_communicator(world);
    if (nccl.communicator) return std::move(nccl.communicator);
    if (comm == "nccl")
        throw UserError(fmt::format("parallel.comm: nccl: {}; use parallel.comm: mpi", nccl.problem));
    static std::once_flag said;
    if (world.rank() == 0)
        say_once(said,
                 fmt::format("parallel.comm: auto: mpi, through the host's memory, since {}", nccl.problem));
    return nullptr;
}

}  // namespace moesaic
