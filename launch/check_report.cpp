#include "launch/check_report.h"

#include <algorithm>
#include <cstdio>

#include "comm/dispatch_plan.h"
#include "launch/micro_batches.h"
#include "launch/trainer.h"

namespace moesaic {

namespace {

struct Sizes {
    i64 element = 4;     // bytes of a real
    i64 expert = 0;      // weights of all experts of all layers
    i64 replicated = 0;  // all other weights
};

Sizes sizes_of(const RunSetup& run) {
    Sizes sizes;
    sizes.element = run.config.train.precision == "fp64" ? 8 : 4;
    sizes.expert = 3 * run.spec.width * run.spec.hidden * run.spec.experts * run.spec.expert_layers();
    sizes.replicated = count_parameters(run.spec).total - sizes.expert;
    return sizes;
}

/// What one block with experts keeps from forward to backward, in reals: the residual stream twice, two
/// norms' outputs, queries, keys and values, attention's output, slots of the choices; per received row its
/// input and both halves of the gate.
i64 saved_reals_of_block(const ModelSpec& spec, i64 tokens, i64 rows) {
    const i64 query = spec.heads * spec.head_dim, key = spec.kv_heads * spec.head_dim;
    const i64 attention = tokens * (4 * spec.width + 2 * query + 2 * key);
    const i64 experts =
        tokens * (spec.top_k * spec.width + 2 * spec.experts) + rows * (spec.width + 3 * spec.hidden);
    return attention + experts;
}

std::string shown_bytes(i64 bytes) {
    const double mebibytes = static_cast<double>(bytes) / (1 << 20);
    return mebibytes < 1024 ? fmt::format("{:.1f} MiB", mebibytes)
                            : fmt::format("{:.2f} GiB", mebibytes / 1024);
}

}  // namespace

MemoryEstimate estimate_memory(const RunSetup& run, int world, int expert_parallel) {
    const Sizes sizes = sizes_of(run);
    const ModelSpec& spec = run.spec;
    const i64 local = sizes.replicated + sizes.expert / expert_parallel;
    MemoryEstimate memory;
    memory.parameters = local * sizes.element;
    memory.gradients = local * (sizes.element + 8);  // of a micro-batch, and their sums in f64
    const i64 replicas = world / expert_parallel;
    memory.moments =
        2 * sizes.element *
        (run.config.parallel.zero == 1 ? sizes.replicated / world + sizes.expert / expert_parallel / replicas
                                       : local);
    const i64 tokens = spec.micro_tokens();
    const i64 rows = receive_capacity(tokens, spec.top_k, spec.receive_budget);
    const i64 transient =
        3 * rows * (spec.width + spec.hidden) + 2 * tokens * spec.vocabulary + 8 * tokens * spec.width;
    memory.activations = sizes.element * (spec.layers * saved_reals_of_block(spec, tokens, rows) + transient);
    return memory;
}

TrafficEstimate estimate_traffic(const RunSetup& run, int world, int expert_parallel) {
    const Sizes sizes = sizes_of(run);
    const ModelSpec& spec = run.spec;
    const i64 tokens = run.config.train.batch_sequences * spec.seq_len;
    const double leaving = static_cast<double>(expert_parallel - 1) / expert_parallel;
    TrafficEstimate traffic;
    traffic.exchange = static_cast<i64>(
        4.0 * leaving *
        static_cast<double>(tokens * spec.top_k * spec.width * sizes.element * spec.expert_layers()));
    const i64 replicas = world / expert_parallel;
    traffic.gradients = 2 * sizes.element * (sizes.replicated * (world - 1) + sizes.expert * (replicas - 1));
    return traffic;
}

void print_check_report(const RunSetup& run, int world, int expert_parallel, const Topology& topology) {
    const ModelSpec& spec = run.spec;
    const ParameterCounts counts = count_parameters(spec);
    const MicroBatches batches{run.config.train.batch_sequences, run.config.train.micro_sequences, world};
    const MemoryEstimate memory = estimate_memory(run, world, expert_parallel);
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
    std::printf("memory    about %s a rank: parameters %s, gradients %s, moments %s, activations %s\n",
                shown_bytes(memory.total()).c_str(), shown_bytes(memory.parameters).c_str(),
                shown_bytes(memory.gradients).c_str(), shown_bytes(memory.moments).c_str(),
                shown_bytes(memory.activations).c_str());
    std::printf(
        "traffic   per step over all ranks: exchange %s (at even routing), gradients and parameters %s\n",
        shown_bytes(traffic.exchange).c_str(), shown_bytes(traffic.gradients).c_str());
    std::printf(
        "balance   convention megatron: the auxiliary loss is 1 per layer at perfect balance (%d in all)\n",
        spec.expert_layers());
}

}  // namespace moesaic
