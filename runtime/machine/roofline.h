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
    i64 heads = 0, kv_heads = 0, head_dim = 0, seq_len = 0, vocabulary = 0;  ///< of the model around it

    [[nodiscard]] i64 rows() const { return tokens * top_k; }  ///< sent, and received by even routing
    [[nodiscard]] i64 local_experts() const { return experts / expert_parallel; }
};
/// DeepSeek-V3 (arXiv 2412.19437, section 4.2), but with plain attention of 32 heads instead of its latent
/// one, and Mixtral 8x7B (arXiv 2401.04088, table 1).
[[nodiscard]] std::span<const MoeShape> roofline_shapes();

/// What one kernel, or one exchange, has to do at least: every operand read once, every result written once.
struct KernelCost {
    std::string_view name;
    double flops = 0;
    bool tensor_cores = false;  ///< flops are products of bf16
    double memory_bytes = 0;
    double nvlink_bytes = 0, network_bytes = 0;  ///< sent by this GPU
};
/// Forward of the layer, in order; nodes of `gpus_per_node`.
[[nodiscard]] std::vector<KernelCost> moe_layer_costs(const MoeShape& shape, i64 gpus_per_node);
/// Its backward, in order: twice the products, the same exchanges.
[[nodiscard]] std::vector<KernelCost> moe_layer_backward_costs(const MoeShape& shape, i64 gpus_per_node);
/// What a model has besides its layers with experts and its dense products: attention, embedding, loss, the
/// router's records, the update of one matrix [width, heads * head_dim].
[[nodiscard]] std::vector<KernelCost> model_costs(const MoeShape& shape);
[[nodiscard]] bool is_exchange(const KernelCost& cost);

/// Products of `rows` rows with the weights [n,k] of `groups` groups, bf16: results, gradients of the rows,
/// and gradients of the weights added onto sums of `sum_bytes` an element.
[[nodiscard]] KernelCost product_cost(std::string_view name, i64 rows, i64 n, i64 k, i64 groups);
[[nodiscard]] KernelCost input_gradient_cost(std::string_view name, i64 rows, i64 n, i64 k, i64 groups);
[[nodiscard]] KernelCost weight_gradient_cost(std::string_view name, i64 rows, i64 n, i64 k, i64 groups,
                                              i64 sum_bytes);

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
