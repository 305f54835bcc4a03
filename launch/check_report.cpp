#include "launch/check_report.h"

#include <algorithm>
#include <cstdio>

#include "launch/memory_estimate.h"
#include "launch/micro_batches.h"
#include "launch/trainer.h"

namespace moesaic {

namespace {

constexpr std::size_t kFilesShown = 8;

struct Sizes {
    i64 expert = 0;      // weights of all experts of all layers
    i64 replicated = 0;  // all other weights
};

Sizes sizes_of(const RunSetup& run) {
    Sizes sizes;
    sizes.expert = 3 * run.spec.width * run.spec.hidden * run.spec.experts * run.spec.expert_layers();
    sizes.replicated = count_parameters(run.spec).total - sizes.expert;
    return sizes;
}

std::string shown_bytes(i64 bytes) {
    const double mebibytes = static_cast<double>(bytes) / (1 << 20);
    return mebibytes < 1024 ? fmt::format("{:.1f} MiB", mebibytes)
                            : fmt::format("{:.2f} GiB", mebibytes / 1024);
}

/// By a dry run, so that it holds for whatever the layers allocate.
void print_memory(const MemoryEstimate& memory, int ranks_in_process) {
    const auto row = [](std::string_view text, i64 bytes) {
        if (bytes > 0)
            std::printf("          %12s  %s\n", shown_bytes(bytes).c_str(), std::string(text).c_str());
    };
    std::printf("memory    %s a rank (memory_bytes of the metrics); where most is in use:\n",
                shown_bytes(memory.pool_bytes()).c_str());
    for (std::size_t use = 0; use < kMemoryUses; ++use) {
        row(name_of(static_cast<MemoryUse>(use)), memory.by_use[use]);
    }
    row("sums between ranks", memory.reductions);
    row("rows in memory that ranks share", memory.shared);
    row("kept for reuse", memory.kept);
    const i64 base = resident_bytes();
    const std::string ranks = ranks_in_process > 1 ? fmt::format(" of {} ranks", ranks_in_process) : "";
    std::printf(
        "process   %s: memory%s and, while a checkpoint is written, %s a rank; %s of program, libraries and "
        "data\n",
        shown_bytes(base + ranks_in_process * memory.process_bytes()).c_str(), ranks.c_str(),
        shown_bytes(memory.checkpoint).c_str(), shown_bytes(base).c_str());
}

}  // namespace

TrafficEstimate estimate_traffic(const RunSetup& run, int world, int expert_parallel) {
    const Sizes sizes = sizes_of(run);
    const ModelSpec& spec = run.spec;
    const i64 tokens = run.config.train.batch_sequences * spec.seq_len;
    const double leaving = static_cast<double>(expert_parallel - 1) / expert_parallel;
    const DType stored = precision_of(run.config);
    // Dispatch and combine, forward and backward; recomputation repeats the forward.
    const double exchanges = spec.recompute ? 6 : 4;
    TrafficEstimate traffic;
    traffic.exchange = static_cast<i64>(
        exchanges * leaving *
        static_cast<double>(tokens * spec.top_k * spec.width * size_of(stored) * spec.expert_layers()));
    // Sums travel in f64 to their owners; updated values come back, or without sharding the summed gradients.
    const DType back = run.config.parallel.zero == 1 ? stored : accumulation_type(stored);
    const i64 replicas = world / expert_parallel;
    traffic.gradients = (size_of(DType::f64) + size_of(back)) *
                        (sizes.replicated * (world - 1) + sizes.expert * (replicas - 1));
    return traffic;
}

void print_check_report(const RunSetup& run, int world, int expert_parallel, const Topology& topology,
                        int ranks_in_process) {
    const ModelSpec& spec = run.spec;
    const ParameterCounts counts = count_parameters(spec);
    const MicroBatches batches{run.config.train.batch_sequences, run.config.train.micro_sequences, world};
    const TrafficEstimate traffic = estimate_traffic(run, world, expert_parallel);
    const i64 tokens = run.config.train.batch_sequences * spec.seq_len;
    std::printf("configuration is valid\n");
    std::printf("data      %lld training and %lld held-out windows of %lld tokens; one epoch is %.1f steps\n",
                static_cast<long long>(run.dataset->training_windows()),
                static_cast<long long>(run.dataset->validation_windows()),
                static_cast<long long>(spec.seq_len),
                static_cast<double>(run.dataset->training_windows()) /
                    static_cast<double>(run.config.train.batch_sequences));
    std::printf("          tokenizer: %s\n", run.tokenizer->describe().c_str());
    const std::vector<std::string> files = run.dataset->files();
    for (std::size_t i = 0; i < files.size() && i < kFilesShown; ++i)
        std::printf("          %s\n", files[i].c_str());
    if (files.size() > kFilesShown)
        std::printf("          ... and %zu more files\n", files.size() - kFilesShown);
    for (const std::string& warning : run.dataset->warnings()) std::printf("          %s\n", warning.c_str());
    std::printf(
        "model     %lld parameters, %lld active per token; %.2f MFLOP per token, forward and backward\n",
        static_cast<long long>(counts.total), static_cast<long long>(counts.active),
        model_flops_per_token(spec) / 1e6);
    std::printf("layout    %d ranks on %d node%s: %d expert-parallel x %d replicas, %lld experts a rank\n",
                world, topology.nodes, topology.nodes == 1 ? "" : "s", expert_parallel,
                world / expert_parallel, static_cast<long long>(spec.experts / expert_parallel));
    std::printf("step      %lld tokens in %lld micro-batches; %lld micro-step%s per rank\n",
                static_cast<long long>(tokens), static_cast<long long>(batches.count()),
                static_cast<long long>(batches.micro_steps()), batches.micro_steps() == 1 ? "" : "s");
    if (spec.balance.scope == BalanceScope::global && batches.micro_steps() > 1) {
        std::printf(
            "          balance scope global: a forward pass more per step (about a third of its work)\n");
    }
    print_memory(estimate_memory(run, world, expert_parallel), ranks_in_process);
    std::printf(
        "traffic   per step over all ranks: exchange %s (at even routing), gradients and parameters %s\n",
        shown_bytes(traffic.exchange).c_str(), shown_bytes(traffic.gradients).c_str());
    std::printf(
        "balance   convention megatron: the auxiliary loss is 1 per layer at perfect balance (%d in all)\n",
        spec.expert_layers());
}

}  // namespace moesaic
