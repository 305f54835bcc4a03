#include "launch/check_report.h"

#include <algorithm>
#include <cstdio>

#include "launch/memory_estimate.h"
#include "launch/micro_batches.h"
#include "launch/trainer.h"
#include "layers/balance.h"
#include "layers/capacity.h"

namespace moesaic {

namespace {

constexpr std::size_t kFilesShown = 8;

struct Sizes {
    i64 expert = 0;      // weights of all experts of all layers
    i64 replicated = 0;  // all other weights
};

Sizes sizes_of(const RunSetup& run) {
    Sizes sizes;
    if (run.spec.kind == ModelKind::momlp) return {count_parameters(run.spec).total, 0};
    sizes.expert =
        run.spec.feed_forward_parameters(run.spec.hidden) * run.spec.experts * run.spec.expert_layers();
    sizes.replicated = count_parameters(run.spec).total - sizes.expert;
    return sizes;
}

std::string shown_bytes(i64 bytes) {
    const double mebibytes = static_cast<double>(bytes) / (1 << 20);
    if (mebibytes < 0.1) return fmt::format("{:.1f} KiB", 1024 * mebibytes);
    return mebibytes < 1024 ? fmt::format("{:.1f} MiB", mebibytes)
                            : fmt::format("{:.2f} GiB", mebibytes / 1024);
}

/// By a dry run, so that it holds for whatever the layers allocate.
void print_memory(const MemoryEstimate& memory, i64 at_most, int ranks_in_process) {
    const auto row = [](std::string_view text, i64 bytes) {
        if (bytes > 0)
            std::printf("          %12s  %s\n", shown_bytes(bytes).c_str(), std::string(text).c_str());
    };
    const i64 more = at_most - memory.pool_bytes();
    const std::string uneven =
        more > 0 ? fmt::format(" at even routing, {} at most", shown_bytes(at_most)) : "";
    std::printf("memory    %s a rank%s (memory_bytes of the metrics); where most is in use:\n",
                shown_bytes(memory.pool_bytes()).c_str(), uneven.c_str());
    for (std::size_t use = 0; use < kMemoryUses; ++use) {
        row(name_of(static_cast<MemoryUse>(use)), memory.by_use[use]);
    }
    row("sums between ranks", memory.reductions);
    row("rows in memory that ranks share", memory.shared);
    row("kept for reuse", memory.kept);
    row("and rows beyond the receive budget, where all tokens choose the experts of one rank", more);
    const i64 base = resident_bytes();
    const std::string ranks = ranks_in_process > 1 ? fmt::format(" of {} ranks", ranks_in_process) : "";
    const std::string copies = memory.checkpoint > 0 ? fmt::format(", copies of {} a rank for checkpoints",
                                                                   shown_bytes(memory.checkpoint))
                                                     : "";
    std::printf("process   %s: memory%s%s, and %s of program, libraries and data\n",
                shown_bytes(base + ranks_in_process * memory.process_bytes()).c_str(), ranks.c_str(),
                copies.c_str(), shown_bytes(base).c_str());
}

void print_data(const RunSetup& run) {
    std::printf("data      %lld training and %lld held-out %s; one epoch is %.1f steps\n",
                static_cast<long long>(run.dataset->training_windows()),
                static_cast<long long>(run.dataset->validation_windows()), run.dataset->unit().c_str(),
                static_cast<double>(run.dataset->training_windows()) /
                    static_cast<double>(run.config.train.batch_sequences));
    if (run.unit.text)
        std::printf("          unit of certificates and intervals: the %s (%s)\n", run.unit.name.c_str(),
                    run.unit.reason.c_str());
    if (run.tokenizer) std::printf("          tokenizer: %s\n", run.tokenizer->describe().c_str());
    const std::vector<std::string> files = run.dataset->files();
    for (std::size_t i = 0; i < files.size() && i < kFilesShown; ++i)
        std::printf("          %s\n", files[i].c_str());
    if (files.size() > kFilesShown)
        std::printf("          ... and %zu more files\n", files.size() - kFilesShown);
    for (const std::string& warning : run.dataset->warnings()) std::printf("          %s\n", warning.c_str());
}

std::string shown_bytes(double bytes) {
    return shown_bytes(static_cast<i64>(bytes));
}

/// The ledger of a step in advance, and what other exchanges would send between nodes.
void print_traffic(const RunSetup& run, const CheckedLayout& layout) {
    const auto estimate = [&](const ExchangeSettings& settings) {
        return estimate_traffic(run, layout.world, layout.expert_parallel, layout.ranks_per_node, settings);
    };
    const TrafficEstimate traffic = estimate(layout.exchange.settings);
    std::printf(
        "traffic   per step over all ranks: exchange %s to others at uniform routing, gradients and "
        "parameters %s\n",
        shown_bytes(traffic.rows_to_others()).c_str(), shown_bytes(traffic.gradients).c_str());
    const int group = layout.expert_parallel * static_cast<int>(run.config.parallel.expert_tensor);
    if (group == 1) return;
    std::printf("          %s\n", layout.exchange.text().c_str());
    std::printf("          %-20s %12s %12s %12s\n", "", "to itself", "same node", "cross node");
    for (const ExpectedBytes& line : traffic.exchange)
        std::printf("          %-20s %12s %12s %12s\n", std::string(line.phase).c_str(),
                    shown_bytes(line.self).c_str(), shown_bytes(line.same_node).c_str(),
                    shown_bytes(line.cross_node).c_str());
    if (group <= layout.ranks_per_node) return;
    for (const ExchangeKind& kind : exchange_table()) {
        ExchangeSettings other = run.spec.exchange;
        other.name = kind.name;
        if (other.name == layout.exchange.settings.name) continue;
        double cross = 0;
        for (const ExpectedBytes& line : estimate(other).exchange) cross += line.cross_node;
        std::printf("          %s would send %s between nodes\n", other.name.c_str(),
                    shown_bytes(cross).c_str());
    }
}

}  // namespace

double TrafficEstimate::rows_to_others() const {
    double sum = 0;
    for (const ExpectedBytes& line : exchange) {
        if (line.phase != kCountsPhase) sum += line.same_node + line.cross_node;
    }
    return sum;
}

namespace {

/// Whether a step begins with a forward pass that only counts: balance over the whole batch, which several
/// micro-steps make.
bool looks_ahead(const ModelSpec& spec, const MicroBatches& batches) {
    return spec.expert_layers() > 0 && spec.balance.scope == BalanceScope::global &&
           batches.micro_steps() > 1;
}

}  // namespace

TrafficEstimate estimate_traffic(const RunSetup& run, int world, int expert_parallel, int ranks_per_node,
                                 const ExchangeSettings& settings) {
    const Sizes sizes = sizes_of(run);
    const ModelSpec& spec = run.spec;
    const DType stored = precision_of(run.config);
    const int slices = static_cast<int>(run.config.parallel.expert_tensor), group = expert_parallel * slices;
    TrafficEstimate traffic;
    if (group > 1 && spec.routes_rows()) {  // else no row travels
        TrafficShape shape;
        shape.tokens = static_cast<double>(run.config.train.batch_sequences * spec.seq_len);
        shape.slices = slices;
        shape.choices = spec.top_k * slices;
        shape.experts = spec.experts * slices;
        shape.nodes = std::max(1, group / ranks_per_node);
        shape.ranks_per_node = group / shape.nodes;
        shape.row_bytes = spec.width * size_of(settings.wire.value_or(stored));
        shape.weight_bytes = size_of(accumulation_type(stored));
        const MicroBatches batches{run.config.train.batch_sequences, run.config.train.micro_sequences, world};
        // Every rank's counts to every rank of its group, micro-step by micro-step.
        traffic.exchange.push_back(
            spread_over_ranks(kCountsPhase, shape,
                              static_cast<double>(batches.micro_steps() * world * group * spec.experts *
                                                  size_of(DType::int64))));
        for (ExpectedBytes& line : expected_traffic(settings, shape)) traffic.exchange.push_back(line);
        const bool pass_before = looks_ahead(spec, batches);
        for (ExpectedBytes& line : traffic.exchange) {
            const bool rows = line.phase == kDispatchPhase || line.phase == kCombinePhase;
            const bool plan = line.phase == kCountsPhase || line.phase == kPlacesPhase;
            const double times =
                spec.expert_layers() * (1 + (rows && spec.recompute) + ((rows || plan) && pass_before));
            line = {line.phase, line.self * times, line.same_node * times, line.cross_node * times};
        }
    }
    // Sums travel in f64 to their owners; updated values come back, or without sharding the summed gradients.
    const DType back = run.config.parallel.zero == 1 ? stored : accumulation_type(stored);
    const i64 replicas = world / group;
    traffic.gradients = static_cast<double>((size_of(DType::f64) + size_of(back)) *
                                            (sizes.replicated * (world - 1) + sizes.expert * (replicas - 1)));
    return traffic;
}

namespace {

void print_layout(const RunSetup& run, const CheckedLayout& layout) {
    const int slices = static_cast<int>(run.config.parallel.expert_tensor), expert = layout.expert_parallel;
    std::printf("layout    %d ranks on %d %snode%s: %d expert-parallel x %s%d replicas, ", layout.world,
                layout.nodes, layout.simulated_nodes ? "simulated " : "", layout.nodes == 1 ? "" : "s",
                expert, slices > 1 ? fmt::format("{} expert-tensor x ", slices).c_str() : "",
                layout.world / (expert * slices));
    const auto experts = static_cast<long long>(run.spec.experts / expert);
    if (slices == 1) {
        std::printf("%lld experts a rank\n", experts);
    } else {
        std::printf("%lld of %lld columns of %lld experts a rank\n",
                    static_cast<long long>(run.spec.hidden / slices), static_cast<long long>(run.spec.hidden),
                    experts);
    }
}

/// A dry run asks no device.
void print_device(const std::string& device) {
    if (device != "cuda") return;
    std::printf(
        "device    cuda: not looked for; memory below is a dry run's of the CPU, to which CUDA, cuBLAS "
        "and page-locked copies add theirs; no GPU has been measured\n");
}

}  // namespace

void print_check_report(const RunSetup& run, const CheckedLayout& layout) {
    const ModelSpec& spec = run.spec;
    const int world = layout.world;
    const ParameterCounts counts = count_parameters(spec);
    const bool by_cells = spec.kind == ModelKind::momlp;
    const i64 batch = run.config.train.batch_sequences;
    const MicroBatches batches{batch, by_cells ? batch / world : run.config.train.micro_sequences, world};
    const i64 tokens = batch * spec.seq_len;
    const char* const row = spec.features > 0 ? "example" : "token";
    std::printf("configuration is valid\n");
    std::printf("folder    %s/%s\n", run.config.run.out.c_str(), run.config.run.name.c_str());
    print_data(run);
    std::printf("model     %lld parameters, %lld active per %s; %.2f MFLOP per %s, forward and backward\n",
                static_cast<long long>(counts.total), static_cast<long long>(counts.active), row,
                model_flops_per_token(spec) / 1e6, row);
    if (spec.expert_layers() > 0 && !by_cells) {
        const std::string shared =
            spec.shared_experts > 0
                ? fmt::format("; {} shared: one feed-forward of width {}{}", spec.shared_experts,
                              spec.shared_hidden(), spec.shared_gate ? ", gated" : "")
                : "";
        std::printf("experts   %lld of width %lld in %d layers, %lld a token%s\n",
                    static_cast<long long>(spec.experts), static_cast<long long>(spec.hidden),
                    spec.expert_layers(), static_cast<long long>(spec.top_k), shared.c_str());
    }
    if (spec.experts > 0 && !by_cells) std::printf("router    %s\n", describe_router(spec).c_str());
    print_layout(run, layout);
    print_device(run.config.run.device);
    std::printf("step      %lld %ss in %lld micro-batches; %lld micro-step%s per rank\n",
                static_cast<long long>(tokens), row, static_cast<long long>(batches.count()),
                static_cast<long long>(batches.micro_steps()), batches.micro_steps() == 1 ? "" : "s");
    if (looks_ahead(spec, batches)) {
        std::printf(
            "          balance scope global: a forward pass more per step (about a third of its work)\n");
    }
    const auto memory = [&](AssumedRouting routing) {
        return estimate_memory(run, world, layout.expert_parallel, layout.ranks_per_node, routing);
    };
    print_memory(memory(AssumedRouting::even), memory(AssumedRouting::hot_rank).pool_bytes(),
                 layout.ranks_in_process);
    print_traffic(run, layout);
    if (spec.expert_layers() == 0 || by_cells) return;
    std::printf("balance   %s\n", describe_balance(spec).c_str());
    std::printf("capacity  %s\n", describe_capacity(spec).c_str());
}

}  // namespace moesaic
