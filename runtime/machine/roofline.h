// How fast an MoE layer could be on a GPU at best, on paper: FLOPs and bytes of every kernel against the
// device's data sheet, which `plan` reads too. Nothing here is measured.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/gpu_data_sheets.h"
#include "runtime/base/types.h"

namespace moesaic {

/// An MoE layer as one of `expert_parallel` GPUs has it, in bf16; tokens are that GPU's, routed evenly.
struct MoeShape {
    std::string_view name;
    i64 tokens, width, hidden, experts, top_k, shared_experts, expert_parallel;
};
/// DeepSeek-V3 (arXiv 2412.19437, section 4.2) and Mixtral 8x7B (arXiv 2401.04088, table 1).
[[nodiscard]] std::span<const MoeShape> roofline_shapes();

/// What one kernel, or one exchange, has to do at least: every operand read once, every result written once.
struct KernelCost {
    std::string_view name;
    double flops = 0;
    bool tensor_cores = false;  ///< flops are products of bf16
    double memory_bytes = 0;
    double nvlink_bytes = 0, network_bytes = 0;  ///< sent by this GPU
};
/// Forward of the layer, in order; nodes of `gpus_per_node`. A backward has twice its products and the same
/// exchanges.
[[nodiscard]] std::vector<KernelCost> moe_layer_costs(const MoeShape& shape, i64 gpus_per_node);

enum class Limit : std::uint8_t { compute, memory, nvlink, network };
[[nodiscard]] std::string_view name_of(Limit limit);
struct KernelTime {
    double seconds;
    Limit limit;
};
/// The longest of its parts, each at the device's peak.
[[nodiscard]] KernelTime least_time(const KernelCost& cost, const GpuPeaks& gpu);

/// Seconds of the kernels after one another, exchanges apart.
struct LayerTime {
    double kernels = 0, exchanges = 0;
    double flops = 0;
};
[[nodiscard]] LayerTime least_time(const MoeShape& shape, const GpuPeaks& gpu);

/// The rows of runtime/cuda/README.md.
[[nodiscard]] std::string roofline_table();

}  // namespace moesaic
