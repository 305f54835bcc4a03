// Rows about NVIDIA's libraries and devices.
#include <fmt/ranges.h>

#include "comm/nccl_module.h"
#include "launch/doctor/advice.h"
#include "launch/doctor/checks.h"
#include "runtime/cuda_module.h"
#include "runtime/module_library.h"

namespace moesaic {

namespace {

Finding library_row(const OsRelease& os, const char* name, const std::optional<std::string>& version) {
    Finding row{.section = "CUDA, NCCL", .name = name, .found = version.value_or("not found")};
    if (version) return row;
    const InstallAdvice advice = install_advice(os, name);
    row.status = FindingStatus::missing;
    row.advice = "only for GPUs: " + advice.text;
    row.packages = advice.packages;
    return row;
}

std::string module_text(const char* variable, const char* file, const char* what) {
    const std::string path = module_path(variable, file);
    return path.empty() ? fmt::format("not in this build ({})", file) : fmt::format("{}: {}", path, what);
}

}  // namespace

Findings check_gpu(const OsRelease& os, const GpuLibraries& libraries,
                   const std::optional<std::string>& nvcc) {
    Findings rows;
    Finding driver = library_row(os, "CUDA driver",
                                 libraries.driver ? std::optional(libraries.driver_version) : std::nullopt);
    if (libraries.driver) {
        driver.found = fmt::format(
            "libcuda for CUDA {}: {}", libraries.driver_version,
            libraries.devices.empty() ? "no device" : fmt::format("{}", fmt::join(libraries.devices, ", ")));
        if (libraries.devices.empty()) {
            driver.status = FindingStatus::warning;
            driver.found += libraries.driver_problem.empty() ? "" : " (" + libraries.driver_problem + ")";
            driver.advice = "nvidia-smi tells what the driver sees; in a container: start it with --gpus all";
        }
    }
    rows.push_back(driver);
    rows.push_back(library_row(os, "CUDA runtime", libraries.runtime));
    rows.push_back(library_row(os, "NCCL", libraries.nccl));
    rows.push_back(library_row(os, "CUDA compiler", nvcc));
    rows.push_back(
        {.section = "CUDA, NCCL",
         .name = "back end",
         .found = module_text(kCudaModuleVariable, kCudaModuleFile, "run.device: cuda; tried on an H100")});
    rows.push_back({.section = "CUDA, NCCL",
                    .name = "communicator",
                    .found = module_text(kNcclModuleVariable, kNcclModuleFile,
                                         "parallel.comm: nccl; tried by two processes on one H100, several "
                                         "GPUs were emulated")});
    return rows;
}

}  // namespace moesaic
