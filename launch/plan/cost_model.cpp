#include "launch/plan/cost_model.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "launch/rank_runtime.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/memory_bandwidth.h"
#include "runtime/cpu/peak.h"

namespace moesaic {

namespace {

constexpr double kSmallCollectives = 6;  // of a step: losses, norms, counts

/// Fitted to runs of a processor with AVX2 (launch/plan/README.md), phase by phase of their traces.
constexpr CostFactors kHost{.projections = 0.95,
                            .scores = 0.75,
                            .experts = 0.84,
                            .head = 0.78,
                            .attention_passes = 3,
                            .expert_passes = 0.24,
                            .weight_passes = 0.6,
                            .router_passes = 66,
                            .logit_passes = 0.72,
                            .packing_passes = 1.2,
                            .folding_passes = 0.44,
                            .update_passes = 0.21,
                            .operation_us = 1.15,
                            .collective_us = 1.9,
                            .sync_passes = 7,
                            .several_threads = 0.71,
                            .message_share = 1.0 / 7};
/// The same of one with AVX-512. Its main memory is twice as fast at some times as at others, and steps are
/// not: what they move is mostly in the caches.
constexpr CostFactors kWideHost{.projections = 0.74,
                                .scores = 0.47,
                                .experts = 0.95,
                                .head = 0.8,
                                .attention_passes = 7,
                                .expert_passes = 2.2,
                                .weight_passes = 0.91,
                                .router_passes = 253,
                                .logit_passes = 3.8,
                                .packing_passes = 2.7,
                                .folding_passes = 0.45,
                                .update_passes = 1.2,
                                .operation_us = 0.71,
                                .collective_us = 1,
                                .sync_passes = 12,
                                .several_threads = 0.95,
                                .copied_bytes = i64{2} << 20,
                                .copied_by_each_core = true,
                                .message_share = 1 / 3.5};
/// Not measured: shares that well-tuned libraries report for products of some thousand rows.
constexpr CostFactors kGpu{.projections = 0.6, .scores = 0.4, .experts = 0.5, .head = 0.6, .operation_us = 6};

/// Seconds that a rank takes to send so many bytes to `peers` others, of which each node has `on_node`.
double spread_seconds(double bytes, double ranks, double on_node, const DeviceProfile& device) {
    if (ranks <= 1) return 0;
    const double near = (std::min(on_node, ranks) - 1) / (ranks - 1);
    const double same_node = bytes * near / (1e9 * device.node.gb_per_s);
    const double cross_node = bytes * (1 - near) / (1e9 * device.network.gb_per_s);
    return std::max(same_node, cross_node);
}

double latency_seconds(double ranks, double on_node, const DeviceProfile& device) {
    if (ranks <= 1) return 0;
    return 1e-6 * (ranks > on_node ? device.network.latency_us : device.node.latency_us);
}

/// Of what tiles do alone, products reach so much: memory is too slow for more (runtime/cpu/README.md).
constexpr double kShareOfTiles = 0.35;

/// Products of bf16 run at the speed of vdpbf16ps, or at a share of that of tiles, where the CPU has either;
/// elsewhere they are widened.
double bf16_tflops(int threads, double fp32_tflops) {
    const Bf16Products products = quickest_bf16_products(true);
    if (products == Bf16Products::widened) return fp32_tflops;
    const bool tiles = products == Bf16Products::tiles;
    const std::vector<Peak> peaks = measure_peaks(PeakType::bf16, threads);
    const auto found = std::ranges::find_if(
        peaks, [&](const Peak& peak) { return peak.loop.starts_with(tiles ? "tdpbf16ps" : "vdpbf16ps"); });
    return found == peaks.end() ? fp32_tflops : 1e-12 * found->best * (tiles ? kShareOfTiles : 1);
}

}  // namespace

const CostFactors& cost_factors(const DeviceProfile& device) {
    if (!device.of_host) return kGpu;
    static const bool wide = vector_target_name().starts_with("AVX3");
    return wide ? kWideHost : kHost;
}

void measure_host(ClusterConfig& cluster) {
    DeviceProfile& device = cluster.device;
    if (!device.of_host) return;
    const int threads = resolve_threads(std::nullopt, 1);
    if (!cluster.gives("device.fp32_tflops")) device.fp32_tflops = 1e-12 * measure_peak_flops(threads, false);
    if (!cluster.gives("device.fp64_tflops")) device.fp64_tflops = 1e-12 * measure_peak_flops(threads, true);
    if (!cluster.gives("device.bf16_tflops")) device.bf16_tflops = bf16_tflops(threads, device.fp32_tflops);
    const CostFactors& factors = cost_factors(device);
    if (!cluster.gives("device.memory_gb_per_s")) {
        const int copying = factors.copied_by_each_core ? 1 : threads;
        for (const MemoryRate& rate : measure_memory_bandwidth(copying, factors.copied_bytes)) {
            if (rate.operation == "copy") device.memory_gb_per_s = 1e-9 * rate.best * threads / copying;
        }
    }
    if (!cluster.gives("device.memory_gib")) {
        const double pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
        device.memory_gib = pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 30);
    }
    // A message within a machine is a copy by one core, of rows that another one has just written.
    if (!cluster.gives("node.gb_per_s"))
        device.node.gb_per_s = device.memory_gb_per_s * factors.message_share;
}

RankDevice rank_device(const ClusterConfig& cluster, const std::string& precision, i64 ranks_on_node) {
    const DeviceProfile& device = cluster.device;
    const double tflops = precision == "bf16"   ? device.bf16_tflops
                          : precision == "fp64" ? device.fp64_tflops
                                                : device.fp32_tflops;
    RankDevice rank{1e12 * tflops, 1e9 * device.memory_gb_per_s, 1};
    if (!device.of_host) return rank;
    const auto sharing = static_cast<double>(ranks_on_node);
    const auto cores = static_cast<double>(resolve_threads(std::nullopt, 1));
    return {rank.flops / sharing, rank.memory / sharing, std::max(1.0, sharing / cores),
            cores > sharing ? cost_factors(device).several_threads : 1};
}

StepTimes step_times(const StepWork& work, const ModelSpec& spec, const PlannedLayout& layout,
                     const ClusterConfig& cluster, const RankDevice& rank, double fullest_over_mean,
                     const SimulatedExchange& layer) {
    const CostFactors& factors = cost_factors(cluster.device);
    const DeviceProfile& device = cluster.device;
    const auto on_node = static_cast<double>(cluster.ranks_per_node);
    const auto ranks = static_cast<double>(layout.ranks), group = static_cast<double>(layout.group());
    const auto products = [&](double flops, double share) {
        return flops / (rank.flops * rank.reached * share);
    };
    const auto memory = [&](double bytes, double passes) {
        return bytes * passes / (rank.memory * rank.reached);
    };
    // Where ranks take turns on a core, one that has less to do leaves its turn to the others.
    const double skew = 1 + (fullest_over_mean - 1) / rank.shared_by;
    StepTimes times;
    times.attention = products(work.projection_flops, factors.projections) +
                      products(work.score_flops, factors.scores) +
                      memory(work.attention_bytes, factors.attention_passes);
    times.router =
        products(work.router_flops, factors.projections) + memory(work.router_scores, factors.router_passes);
    times.experts = skew * (products(work.expert_flops, factors.experts) +
                            memory(work.expert_row_bytes, factors.expert_passes)) +
                    memory(work.expert_weight_bytes, factors.weight_passes);
    times.head = products(work.head_flops, factors.head) + memory(work.logit_bytes, factors.logit_passes);
    times.rows = memory(work.packing_bytes, factors.packing_passes) +
                 memory(work.folding_bytes, factors.folding_passes);
    times.update = memory(work.update_bytes, factors.update_passes);
    times.calls = 1e-6 * factors.operation_us * work.operations * rank.shared_by;
    const double collective = 1e-6 * factors.collective_us * rank.shared_by;
    times.exchange = work.collectives * collective +
                     work.micro_steps * static_cast<double>(spec.expert_layers()) *
                         (layer.seconds * rank.shared_by + latency_seconds(group, on_node, device));
    const double stride = std::max(1.0, on_node / group);  // replicas on one node
    times.gradients =
        factors.sync_passes * rank.shared_by *
            (spread_seconds(work.replicated_sync_bytes, ranks, on_node, device) +
             spread_seconds(work.expert_sync_bytes, static_cast<double>(layout.replicas()), stride, device)) +
        (ranks > 1 ? kSmallCollectives : 0) *
            (latency_seconds(ranks, on_node, device) * rank.shared_by + collective);
    return times;
}

}  // namespace moesaic
