#include "runtime/machine/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace moesaic {

namespace {

constexpr std::array kShapes{
    MoeShape{"DeepSeek-V3-like", 4096, 7168, 2048, 256, 8, 1, 64},
    MoeShape{"Mixtral-8x7B-like", 8192, 4096, 14336, 8, 2, 0, 8},
};

constexpr double kBf16 = 2, kReal = 4, kIndex = 4;

/// c [m,n] = a [m,k] b [k,n], `groups` times with as many b; bf16 but for what is written.
KernelCost product(std::string_view name, double m, double n, double k, double groups = 1,
                   double written_bytes = kBf16) {
    return {.name = name,
            .flops = 2 * m * n * k,
            .tensor_cores = true,
            .memory_bytes = (m * k + groups * k * n) * kBf16 + m * n * written_bytes};
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

bool is_exchange(const KernelCost& cost) {
    return cost.nvlink_bytes + cost.network_bytes > 0;
}

}  // namespace

std::span<const MoeShape> roofline_shapes() {
    return kShapes;
}

std::vector<KernelCost> moe_layer_costs(const MoeShape& shape, i64 gpus_per_node) {
    const auto t = static_cast<double>(shape.tokens), h = static_cast<double>(shape.width);
    const auto f = static_cast<double>(shape.hidden), e = static_cast<double>(shape.experts);
    const auto k = static_cast<double>(shape.top_k), shared = static_cast<double>(shape.shared_experts);
    const double rows = t * k;  // sent, and received by even routing
    const double local = e / static_cast<double>(shape.expert_parallel);
    std::vector<KernelCost> costs;
    costs.push_back(moved("RMSNorm", 4 * t * h, 2 * t * h * kBf16 + h * kBf16 + t * kReal));
    costs.push_back(product("router logits", t, e, h, 1, kReal));
    costs.push_back(moved("softmax, top k", 5 * t * e, 2 * t * e * kReal + t * k * (kReal + kIndex)));
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
