#include "launch/rank_runtime.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace moesaic {

namespace {

MeshShape mesh_shape(const Config& config, const ModelSpec& spec, const Communicator& world,
                     const RuntimeOptions& options) {
    MeshShape shape;
    shape.expert = options.expert_parallel
                       ? *options.expert_parallel
                       : resolve_expert_parallel(config, spec, world.size(), world.topology().ranks_per_node);
    shape.ranks_per_node = static_cast<int>(config.parallel.ranks_per_node.value_or(0));
    return shape;
}

ExchangeSettings exchange_settings(const Config& config) {
    const ParallelConfig& parallel = config.parallel;
    ExchangeSettings settings;
    settings.name = parallel.exchange;
    settings.reduce_on_node = parallel.dedup_reduce == "node";
    if (parallel.wire == "fp32") settings.wire = DType::f32;
    if (parallel.wire == "bf16") settings.wire = DType::bf16;
    return settings;
}

int cores_of_this_process() {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

DType precision_of(const Config& config) {
    const std::string& precision = config.train.precision;
    return precision == "fp64" ? DType::f64 : precision == "bf16" ? DType::bf16 : DType::f32;
}

int resolve_threads(std::optional<i64> configured, int local_ranks) {
    if (configured) return static_cast<int>(*configured);
    // A launcher that binds ranks has shared out the cores already.
    const int cores = cores_of_this_process();
    const bool bound = cores < static_cast<int>(std::thread::hardware_concurrency());
    return bound ? cores : std::max(1, cores / std::max(1, local_ranks));
}

int resolve_expert_parallel(const Config& config, const ModelSpec& spec, int world, int ranks_per_node) {
    const int experts = static_cast<int>(spec.experts);
    if (config.parallel.expert) {
        MeshShape shape;
        shape.expert = static_cast<int>(*config.parallel.expert);
        check_mesh_shape(shape, experts, world);
        return shape.expert;
    }
    return choose_expert_parallel(experts, world,
                                  static_cast<int>(config.parallel.ranks_per_node.value_or(ranks_per_node)));
}

ModelSpec resolve_model(const Config& config, i64 vocabulary) {
    const ModelConfig& model = config.model;
    ModelSpec spec;
    spec.vocabulary = model.vocabulary.value_or(vocabulary);
    spec.width = model.width;
    spec.layers = static_cast<int>(model.layers);
    spec.heads = model.heads;
    spec.kv_heads = model.kv_heads;
    spec.head_dim = model.head_dim.value_or(model.width / model.heads);
    spec.qk_norm = model.qk_norm == "full"   ? QkNorm::full
                   : model.qk_norm == "head" ? QkNorm::head
                                             : QkNorm::none;
    spec.norm_eps = model.norm_eps;
    spec.rope_theta = model.rope_theta;
    spec.init_std = model.init_std;
    spec.clip_qkv = model.clip_qkv;
    spec.dense_hidden = model.dense_hidden;
    spec.tie_embeddings = model.tie_embeddings;
    spec.experts = model.moe.experts;
    spec.top_k = model.moe.top_k;
    spec.hidden = model.moe.hidden;
    spec.every = static_cast<int>(model.moe.every);
    spec.router = {
        model.moe.router.kind,
        model.moe.router.score == "softmax" ? RouterScore::softmax : RouterScore::softmax_over_top_k,
        model.moe.router.normalize.value_or(model.moe.top_k > 1)};
    spec.balance = {model.moe.balance.aux, model.moe.balance.z,
                    model.moe.balance.scope == "sequence" ? BalanceScope::sequence
                    : model.moe.balance.scope == "global" ? BalanceScope::global
                                                          : BalanceScope::micro};
    spec.seq_len = config.task.data.seq_len;
    spec.micro_sequences = config.train.micro_sequences;
    spec.receive_budget = config.parallel.receive_budget;
    spec.exchange = exchange_settings(config);
    spec.recompute = config.train.recompute == "layer";
    return spec;
}

namespace {

ModelSpec with_exchange(ModelSpec spec, const ExchangeSettings& settings) {
    spec.exchange = settings;
    return spec;
}

}  // namespace

RankRuntime::RankRuntime(const Config& config, const ModelSpec& spec, Communicator& world,
                         const RuntimeOptions& options)
    : backend(make_cpu_backend(options.threads, options.stream_mode,
                               options.shuffle_seed + static_cast<u64>(world.rank()))),
      compute(backend->make_stream("compute")),
      exchange(backend->make_stream("exchange")),
      mesh(std::make_unique<Mesh>(world, mesh_shape(config, spec, world, options),
                                  static_cast<int>(spec.experts))),
      store(*backend, options.dtype.value_or(precision_of(config))),
      exchange_choice(choose(spec, options.threads)),
      model(with_exchange(spec, exchange_choice.settings), *mesh, store, options.defects) {
    store.keep_packed_copies();
    store.allocate(*compute, static_cast<u64>(config.run.seed));
    StepContext start = context(Phase::train, 0);
    gradient_sync =
        std::make_unique<GradientSync>(start, store, config.parallel.bucket_bytes, options.defects);
    const AdamWSettings settings{config.optimizer.betas[0], config.optimizer.betas[1], config.optimizer.eps,
                                 config.optimizer.weight_decay};
    optimizer = std::make_unique<ShardedOptimizer>(start, store, *gradient_sync, settings,
                                                   static_cast<int>(config.parallel.zero));
    store.pack(*compute);
}

ExchangeChoice RankRuntime::choose(const ModelSpec& spec, int threads) {
    if (spec.exchange.name != "auto" || spec.experts == 0) return {spec.exchange, {}};
    // On a back end of its own: what measuring takes is given back.
    const auto own = make_cpu_backend(threads);
    const auto own_compute = own->make_stream("compute"), own_exchange = own->make_stream("exchange");
    StepContext measuring{*own, *own_compute, *own_exchange, *mesh, Phase::train, 0};
    return choose_exchange(measuring, exchange_sizes(spec, *mesh, store.dtype()), spec.exchange);
}

StepContext RankRuntime::context(Phase phase, i64 step) {
    return {*backend, *compute, *exchange, *mesh, phase, step};
}

}  // namespace moesaic
