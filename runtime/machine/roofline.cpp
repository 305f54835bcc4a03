#include "runtime/machine/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace moesaic {

namespace {

constexpr std::array kShapes{
    MoeShape{"DeepSeek-V3-like", 4096, 7168, 2048, 256, 8, 1, 64, 32, 32, 128, 4096, 129280},
    MoeShape{"Mixtral-8x7B-like", 8192, 4096, 14336, 8, 2, 0, 8, 32, 8, 128, 4096, 32000},
};

constexpr double kBf16 = 2, kReal = 4, kWide = 8, kIndex = 4;

/// c [m,n] = a [m,k] b [k,n], `groups` times with as many b; bf16 but for what is written.
KernelCost product(std::string_view name, double m, double n, double k, double groups = 1,
                   double written_bytes = kBf16) {
    return {.name = name,
            .flops = 2 * m * n * k,
            .tensor_cores = true,
            .memory_bytes = (m * k + groups * k * n) * kBf16 + m * n * written_bytes};
}
KernelCost input_gradient(std::string_view name, double m, double n, double k, double groups = 1) {
    return product(name, m, k, n, groups);
}
/// Onto sums, which are read and written.
KernelCost weight_gradient(std::string_view name, double m, double n, double k, double groups,
                           double sum_bytes) {
    return {.name = name,
            .flops = 2 * m * n * k,
            .tensor_cores = true,
            .memory_bytes = (m * n + m * k) * kBf16 + groups * n * k * 2 * sum_bytes};
}

KernelCost moved(std::string_view name, double flops, double bytes) {
    return {.name = name, .flops = flops, .memory_bytes = bytes};
}

KernelCost exchange(std::string_view name, double bytes, const MoeShape& shape, i64 gpus_per_node) {
    const auto group = static_cast<double>(shape.expert_parallel);
    const double near = static_cast<double>(std::min(gpus_per_node, shape.expert_parallel)) - 1;
    const double far = group - 1 - near;
    return {.name = name,
            .memory_bytes = 2 * bytes,  // sent rows are read, received ones written
            .nvlink_bytes = bytes * near / group,
            .network_bytes = bytes * far / group};
}

/// Of a matrix in f32: gradients of one micro-batch joining their f64 sums, and the optimizer's step.
void push_update(std::vector<KernelCost>& costs, double elements) {
    costs.push_back(moved("gradient into its sum", elements, elements * (2 * kReal + 2 * kWide)));
    costs.push_back(moved("sum of squares", 2 * elements, elements * kReal));
    costs.push_back(moved("AdamW", 12 * elements, elements * (7 * kReal + kBf16)));
}

}  // namespace

bool is_exchange(const KernelCost& cost) {
    return cost.nvlink_bytes + cost.network_bytes > 0;
}

KernelCost product_cost(std::string_view name, i64 rows, i64 n, i64 k, i64 groups) {
    return product(name, static_cast<double>(rows), static_cast<double>(n), static_cast<double>(k),
                   static_cast<double>(groups));
}
KernelCost input_gradient_cost(std::string_view name, i64 rows, i64 n, i64 k, i64 groups) {
    return input_gradient(name, static_cast<double>(rows), static_cast<double>(n), static_cast<double>(k),
                          static_cast<double>(groups));
}
KernelCost weight_gradient_cost(std::string_view name, i64 rows, i64 n, i64 k, i64 groups, i64 sum_bytes) {
    return weight_gradient(name, static_cast<double>(rows), static_cast<double>(n), static_cast<double>(k),
                           static_cast<double>(groups), static_cast<double>(sum_bytes));
}

std::span<const MoeShape> roofline_shapes() {
    return kShapes;
}

std::vector<KernelCost> moe_layer_costs(const MoeShape& shape, i64 gpus_per_node) {
    const auto t = static_cast<double>(shape.tokens), h = static_cast<double>(shape.width);
    const auto f = static_cast<double>(shape.hidden), e = static_cast<double>(shape.experts);
    const auto k = static_cast<double>(shape.top_k), shared = static_cast<double>(shape.shared_experts);
    const double rows = t * k, local = static_cast<double>(shape.local_experts());
    std::vector<KernelCost> costs;
    costs.push_back(moved("RMSNorm", 4 * t * h, 2 * t * h * kBf16 + h * kBf16 + t * kReal));
    costs.push_back(product("router logits", t, e, h, 1, kReal));
    costs.push_back(moved("softmax", 5 * t * e, 2 * t * e * kReal + t * kReal));
    costs.push_back(moved("top k", t * e, t * e * kReal + t * k * (kReal + kIndex)));
    costs.push_back(moved("sort by expert", rows, 3 * rows * kIndex));
    costs.push_back(moved("rows to send order", 0, (t + rows) * h * kBf16 + rows * kIndex));
    costs.push_back(exchange("dispatch", rows * h * kBf16, shape, gpus_per_node));
    costs.push_back(product("experts: gate, up", rows, 2 * f, h, local));
    costs.push_back(moved("SwiGLU", 5 * rows * f, 3 * rows * f * kBf16));
    costs.push_back(product("experts: down", rows, h, f, local));
    costs.push_back(exchange("combine", rows * h * kBf16, shape, gpus_per_node));
    costs.push_back(moved("weighted sum", 2 * rows * h, (rows + t) * h * kBf16 + rows * (kReal + kIndex)));
    if (shape.shared_experts > 0) {
        costs.push_back(product("shared: gate, up", t, 2 * f * shared, h));
        costs.push_back(moved("shared: SwiGLU", 5 * t * f * shared, 3 * t * f * shared * kBf16));
        costs.push_back(product("shared: down", t, h, f * shared));
    }
    return costs;
}

std::vector<KernelCost> moe_layer_backward_costs(const MoeShape& shape, i64 gpus_per_node) {
    const auto t = static_cast<double>(shape.tokens), h = static_cast<double>(shape.width);
    const auto f = static_cast<double>(shape.hidden), e = static_cast<double>(shape.experts);
    const auto k = static_cast<double>(shape.top_k), shared = static_cast<double>(shape.shared_experts);
    const double rows = t * k, local = static_cast<double>(shape.local_experts());
    std::vector<KernelCost> costs;
    costs.push_back(moved("weighted sum, backward", 3 * rows * h,
                          (t + 2 * rows) * h * kBf16 + rows * (2 * kReal + kIndex)));
    costs.push_back(exchange("combine, backward", rows * h * kBf16, shape, gpus_per_node));
    costs.push_back(input_gradient("experts: down, input gradient", rows, h, f, local));
    costs.push_back(moved("SwiGLU, backward", 10 * rows * f, 5 * rows * f * kBf16));
    costs.push_back(weight_gradient("experts: down, weight gradient", rows, h, f, local, kWide));
    costs.push_back(input_gradient("experts: gate, up, input gradient", rows, 2 * f, h, local));
    costs.push_back(weight_gradient("experts: gate, up, weight gradient", rows, 2 * f, h, local, kWide));
    costs.push_back(exchange("dispatch, backward", rows * h * kBf16, shape, gpus_per_node));
    costs.push_back(moved("sum of a token's rows", rows * h, (rows + t) * h * kBf16 + rows * kIndex));
    costs.push_back(moved("router's gradient", 6 * t * e, 2 * t * e * kReal + t * k * (2 * kReal + kIndex)));
    // Gradients of logits are f32, and so are their products.
    costs.push_back(moved("router logits, input gradient", 2 * t * e * h,
                          t * e * kReal + e * h * kBf16 + 2 * t * h * kBf16));
    costs.push_back(moved("router logits, weight gradient", 2 * t * e * h,
                          t * e * kReal + t * h * kBf16 + 2 * e * h * kReal));
    if (shape.shared_experts > 0) {
        costs.push_back(input_gradient("shared: down, input gradient", t, h, f * shared));
        costs.push_back(moved("shared: SwiGLU, backward", 10 * t * f * shared, 5 * t * f * shared * kBf16));
        costs.push_back(weight_gradient("shared: down, weight gradient", t, h, f * shared, 1, kReal));
        costs.push_back(input_gradient("shared: gate, up, input gradient", t, 2 * f * shared, h));
        costs.push_back(weight_gradient("shared: gate, up, weight gradient", t, 2 * f * shared, h, 1, kReal));
    }
    costs.push_back(
        moved("RMSNorm, backward", 8 * t * h, 3 * t * h * kBf16 + h * kBf16 + 2 * h * kReal + t * kReal));
    return costs;
}

std::vector<KernelCost> model_costs(const MoeShape& shape) {
    const auto t = static_cast<double>(shape.tokens), h = static_cast<double>(shape.width);
    const auto e = static_cast<double>(shape.experts), k = static_cast<double>(shape.top_k);
    const auto length = static_cast<double>(shape.seq_len), heads = static_cast<double>(shape.heads);
    const auto vocabulary = static_cast<double>(shape.vocabulary);
    const double queries = static_cast<double>(shape.heads * shape.head_dim);
    const double keys = static_cast<double>(shape.kv_heads * shape.head_dim);
    const double scores = t * length / 2 * queries;  // multiply-adds of one product; the causal half
    std::vector<KernelCost> costs;
    costs.push_back(moved("embedding", 0, 2 * t * h * kBf16 + t * kIndex));
    costs.push_back(moved("RoPE", 3 * t * queries,
                          2 * t * queries * kBf16 + length * static_cast<double>(shape.head_dim) * kReal));
    costs.push_back({.name = "attention",
                     .flops = 2 * 2 * scores,
                     .tensor_cores = true,
                     .memory_bytes = 2 * t * (queries + keys) * kBf16 + t * heads * kReal});
    costs.push_back({.name = "attention, backward",
                     .flops = 5 * 2 * scores,
                     .tensor_cores = true,
                     .memory_bytes = 4 * t * (queries + keys) * kBf16 + t * heads * kReal});
    costs.push_back(moved("residual sum", t * h, 3 * t * h * kBf16));
    costs.push_back(moved("router's sums", 2 * t * e,
                          t * e * kReal + t * k * (kReal + kIndex) + t * kReal + 4 * e * kWide));
    costs.push_back(moved("router's confidence", 3 * t * e, t * e * kReal + t * kReal));
    costs.push_back(
        moved("cross-entropy", 4 * t * vocabulary, t * vocabulary * kReal + t * (kIndex + 3 * kWide)));
    costs.push_back(moved("cross-entropy, backward", 3 * t * vocabulary,
                          2 * t * vocabulary * kReal + t * (kIndex + kWide)));
    costs.push_back(moved("embedding, backward", t * h,
                          t * h * kBf16 + t * kIndex + 2 * std::min(t, vocabulary) * h * kReal));
    push_update(costs, h * queries);
    return costs;
}

std::string_view name_of(Limit limit) {
    constexpr std::array<std::string_view, 4> kNames{"compute", "memory", "NVLink", "network"};
    return kNames.at(static_cast<std::size_t>(limit));
}

KernelTime least_time(const KernelCost& cost, const GpuPeaks& gpu) {
    const std::array parts{
        KernelTime{cost.flops / (cost.tensor_cores ? gpu.bf16_flops : gpu.fp32_flops), Limit::compute},
        KernelTime{cost.memory_bytes / gpu.memory_bytes, Limit::memory},
        KernelTime{cost.nvlink_bytes / gpu.nvlink_bytes, Limit::nvlink},
        KernelTime{cost.network_bytes / gpu.network_bytes, Limit::network},
    };
    return *std::ranges::max_element(parts, {}, &KernelTime::seconds);
}

LayerTime least_time(const MoeShape& shape, const GpuPeaks& gpu) {
    LayerTime layer;
    for (const KernelCost& cost : moe_layer_costs(shape, gpu.gpus_per_node)) {
        (is_exchange(cost) ? layer.exchanges : layer.kernels) += least_time(cost, gpu).seconds;
        layer.flops += cost.flops;
    }
    return layer;
}

std::string roofline_table() {
    std::string text = "| shape | kernel | GFLOP | MB | sent MB: node, beyond |";
    std::string rule = "| --- | --- | --- | --- | --- |";
    for (const GpuPeaks& gpu : gpu_peaks()) {
        text += fmt::format(" {}, µs |", gpu.name);
        rule += " --- |";
    }
    text += "\n" + rule + "\n";
    const auto time_text = [](const KernelTime& time) {
        return fmt::format(" {:.1f} {} |", time.seconds * 1e6, name_of(time.limit));
    };
    for (const MoeShape& shape : kShapes) {
        for (const KernelCost& cost : moe_layer_costs(shape, gpu_peaks()[0].gpus_per_node)) {
            text += fmt::format("| {} | {} | {:.2f} | {:.1f} | {:.1f}, {:.1f} |", shape.name, cost.name,
                                cost.flops * 1e-9, cost.memory_bytes * 1e-6, cost.nvlink_bytes * 1e-6,
                                cost.network_bytes * 1e-6);
            for (const GpuPeaks& gpu : gpu_peaks()) text += time_text(least_time(cost, gpu));
            text += "\n";
        }
        text += fmt::format("| **{}** | **kernels + exchanges** | {:.0f} | | |", shape.name,
                            least_time(shape, gpu_peaks()[0]).flops * 1e-9);
        for (const GpuPeaks& gpu : gpu_peaks()) {
            const LayerTime layer = least_time(shape, gpu);
            text += fmt::format(" {:.0f} + {:.0f} |", layer.kernels * 1e6, layer.exchanges * 1e6);
        }
        text += "\n";
    }
    return text;
}

}  // namespace moesaic
