// What NVIDIA's data sheets say of GPUs: for the roofline on paper (runtime/machine/roofline.h) and for
// `plan`.
#pragma once

#include <span>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

/// Of one GPU, per second, one direction of a link; without sparsity.
struct GpuPeaks {
    std::string_view profile, name;  ///< in cluster files; in tables
    double bf16_flops, fp32_flops, fp64_flops;
    double memory_bytes;
    double nvlink_bytes;   ///< to all GPUs of a node together
    double network_bytes;  ///< to GPUs of other nodes: the network adapter of an HGX board
    i64 gpus_per_node;
    i64 memory_capacity;  ///< bytes
};
/// H100 SXM, H200 and B200.
[[nodiscard]] std::span<const GpuPeaks> gpu_peaks();

}  // namespace moesaic
