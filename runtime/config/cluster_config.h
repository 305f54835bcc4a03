// A cluster to plan for: machines, devices, links.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/config/diagnostics.h"

namespace moesaic {

/// Of one rank, in each direction.
struct LinkProfile {
    double latency_us = 0;
    double gb_per_s = 0;  ///< 1e9 bytes
};

/// One rank's device. Of `cpu` a rank has its share of the machine's cores, measured unless given.
struct DeviceProfile {
    std::string name;
    double bf16_tflops = 0, fp32_tflops = 0, fp64_tflops = 0;  ///< dense, nominal
    double memory_gib = 0, memory_gb_per_s = 0;
    LinkProfile node;      ///< to ranks of the same machine
    LinkProfile network;   ///< to those of other machines
    std::string source;    ///< of these numbers
    bool of_host = false;  ///< ranks are processes that share the cores of their machine
};
/// Those of base/gpu_data_sheets.h, and cpu.
[[nodiscard]] const std::vector<DeviceProfile>& device_profiles();

struct ClusterConfig {
    std::string file;
    i64 nodes = 1, ranks_per_node = 1;
    DeviceProfile device;
    std::vector<std::string> given;  ///< keys of numbers that the file says itself: "device.fp32_tflops"

    [[nodiscard]] i64 ranks() const { return nodes * ranks_per_node; }
    [[nodiscard]] bool gives(std::string_view key) const;
};

/// Most ranks of a plan.
inline constexpr i64 kMostPlannedRanks = 16384;

/// Reads a cluster file. Every mistake is in `diagnostics`, with file and line.
[[nodiscard]] ClusterConfig load_cluster(const std::filesystem::path& file, Diagnostics& diagnostics);

}  // namespace moesaic
