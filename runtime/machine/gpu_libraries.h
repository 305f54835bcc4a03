// NVIDIA's libraries as they are found at run time; nothing here needs them to be there.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace moesaic {

struct GpuLibraries {
    bool driver = false;                 ///< libcuda.so.1 can be loaded
    std::string driver_problem;          ///< why there are no devices although there is a driver
    std::string driver_version;          ///< the CUDA version that the driver speaks, "12.4"
    std::vector<std::string> devices;    ///< names
    std::optional<std::string> runtime;  ///< version of libcudart
    std::optional<std::string> nccl;     ///< version of libnccl.so.2
};

/// Loads the libraries with dlopen and asks them; initialises the driver where there is one.
[[nodiscard]] GpuLibraries find_gpu_libraries();

}  // namespace moesaic
