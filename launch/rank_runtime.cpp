#include "launch/rank_runtime.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <thread>

#include "launch/device.h"
#include "launch/expert_rebalancer.h"
#include "launch/micro_batches.h"
#include "layers/capacity.h"
#include "layers/routers/uniform_router.h"
#include "runtime/base/log.h"

namespace moesaic {

namespace {

MeshShape mesh_shape(const Config& config, const ModelSpec& spec, const Communicator& world,
                     const RuntimeOptions& options) {
    MeshShape shape;
    shape.expert = options.expert_parallel
                       ? *options.expert_parallel
                       : resolve_expert_parallel(config, spec, world.size(), world.topology().ranks_per_node);
    shape.expert_tensor = options.expert_tensor.value_or(static_cast<int>(config.parallel.expert_tensor));
    shape.ranks_per_node = static_cast<int>(config.parallel.ranks_per_node.value_or(0));
    return shape;
}

/// Rows travel beside computation on streams with threads of their own.
StreamMode stream_mode(const ModelSpec& spec, const RuntimeOptions& options) {
    const bool inline_execution = options.stream_mode == StreamMode::inline_execution;
    return spec.chunks > 1 && inline_execution ? StreamMode::threads : options.stream_mode;
}

ExchangeSettings exchange_settings(const Config& config) {
    const ParallelConfig& parallel = config.parallel;
    ExchangeSettings settings;
    settings.name = parallel.exchange;
    if (parallel.checksums && settings.name == "auto") settings.name = "flat";  // of those that send rows
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

BalanceSpec resolve_balance(const BalanceConfig& balance) {
    const BalanceScope scope = balance.scope == "sequence" ? BalanceScope::sequence
                               : balance.scope == "global" ? BalanceScope::global
                                                           : BalanceScope::micro;
    const BalanceConvention convention = balance.convention == "gshard" ? BalanceConvention::gshard
                                         : balance.convention == "hf"   ? BalanceConvention::hf
                                         : balance.convention == "switch"
                                             ? BalanceConvention::switch_transformer
                                             : BalanceConvention::megatron;
    return {balance.aux, balance.z, scope, convention, balance.importance, balance.load};
}

std::optional<CapacitySpec> resolve_capacity(const CapacityConfig& capacity) {
    if (capacity.dropless) return {};
    using Rounding = CapacityRounding;
    const std::string& name = capacity.rounding;
    const Rounding rounding = name == "floor"        ? Rounding::floor
                              : name == "tutel"      ? Rounding::tutel
                              : name == "fastmoe"    ? Rounding::fastmoe
                              : name == "colossalai" ? Rounding::colossalai
                              : name == "olmo"       ? Rounding::olmo
                                                     : Rounding::ceil;
    return CapacitySpec{capacity.factor,
                        capacity.policy == "position" ? DropPolicy::position : DropPolicy::probability,
                        rounding,
                        capacity.per == "micro" ? CapacityScope::micro : CapacityScope::sequence,
                        capacity.renormalize,
                        capacity.pad};
}

void check_traffic(const ModelSpec& spec) {
    if (spec.router.kind != "uniform") return;
    try {
        (void)make_traffic(spec.router.traffic, traffic_shape(spec));
    } catch (const UserError& error) {
        throw UserError(fmt::format("model.moe.router.traffic: {}", error.what()));
    }
}

/// Padded experts get all their rows at once; as a multiple of the mean that is the same on every layout.
void check_padding(const ModelSpec& spec) {
    if (spec.experts == 0 || !spec.capacity || !spec.capacity->pad) return;
    if (spec.chunks > 1)
        throw UserError(
            "parallel.chunks: padded experts take all their rows at once; use 1, or "
            "model.moe.capacity.pad: false");
    const i64 rows = spec.experts * most_rows_of_micro_batch(spec);
    if (rows <= receive_capacity(spec.micro_tokens(), spec.top_k, spec.receive_budget)) return;
    const double multiple = static_cast<double>(rows) / static_cast<double>(spec.micro_tokens() * spec.top_k);
    throw UserError(
        fmt::format("model.moe.capacity.pad: padded experts take {:.4g} times the mean number of "
                    "rows at once, parallel.receive_budget admits {:g} times; "
                    "parallel.receive_budget: {:.4g}, or pad: false",
                    multiple, spec.receive_budget, std::ceil(100 * multiple) / 100));
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
    if (spec.kind == ModelKind::momlp) {
        if (experts % world == 0) return world;
        throw UserError(
            fmt::format("model.moe.experts: {} ranks cannot share {} cells of a momlp evenly; a "
                        "multiple of the ranks",
                        world, experts));
    }
    MeshShape shape;
    shape.expert = static_cast<int>(config.parallel.expert.value_or(1));
    shape.expert_tensor = static_cast<int>(config.parallel.expert_tensor);
    check_mesh_shape(shape, experts, world);
    if (config.parallel.expert) return shape.expert;
    return choose_expert_parallel(experts, world,
                                  static_cast<int>(config.parallel.ranks_per_node.value_or(ranks_per_node)),
                                  shape.expert_tensor);
}

namespace {

RouterSpec resolve_router(const Config& config) {
    const RouterConfig& given = config.model.moe.router;
    RouterSpec router;
    router.kind = given.kind;
    if (given.score == "sigmoid") router.score = RouterScore::sigmoid;
    if (given.score == "softmax_over_top_k") router.score = RouterScore::softmax_over_top_k;
    router.normalize = config.model.moe.normalized();
    router.scale = given.scale;
    router.groups = given.groups;
    router.top_groups = given.top_groups;
    router.group_score = given.group_score == "top1" ? GroupScore::top1 : GroupScore::top2_sum;
    router.bias_rate = given.bias_rate;
    router.bias_recentre = given.bias_recentre;
    router.jitter = given.jitter;
    router.sinkhorn_iterations = given.sinkhorn_iterations;
    router.sinkhorn_per_sequence = given.sinkhorn_scope == "sequence";
    router.learn_prototypes = given.prototypes == "learnt";
    router.hash_seed = static_cast<u64>(given.hash_seed);
    router.trace = given.trace;
    router.traffic = given.traffic;
    router.seed = static_cast<u64>(config.run.seed);
    return router;
}

/// Losses that a router has nothing to be trained by, or nothing to measure, count for nothing.
void leave_out_idle_losses(ModelSpec& spec) {
    const RouterTraits traits = router_traits(spec.router);
    if (!traits.has_logits) spec.balance.z = 0;
    if (traits.chooses_tokens) spec.balance.aux = 0;  // every expert has as many tokens
    if (traits.learns) return;
    spec.balance.aux = spec.balance.z = 0;
    spec.balance.importance = spec.balance.load = 0;
}

}  // namespace

ModelSpec resolve_model(const Config& config, i64 vocabulary) {
    return resolve_model(config, SampleShape{config.task.data.seq_len, vocabulary});
}

ModelSpec resolve_model(const Config& config, const SampleShape& shape) {
    const ModelConfig& model = config.model;
    ModelSpec spec;
    if (model.kind == "mlp") spec.kind = ModelKind::mlp;
    if (model.kind == "momlp") spec.kind = ModelKind::momlp;
    if (shape.real_targets) spec.loss = LossKind::squared_error;
    spec.features = shape.features;
    spec.outputs = shape.outputs;
    spec.targets_at_end = shape.targets_at_end;
    spec.causal = config.task.kind == "lm";
    spec.residual = model.residual;
    spec.vocabulary = model.vocabulary.value_or(shape.vocabulary);
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
    spec.activation = activation_kind(model.moe.activation);
    spec.dense_hidden = model.dense_hidden;
    spec.tie_embeddings = model.tie_embeddings;
    spec.experts = model.moe.experts;
    spec.top_k = model.moe.top_k;
    spec.hidden = model.moe.hidden;
    spec.every = static_cast<int>(model.moe.every);
    spec.shared_experts = model.moe.shared_experts;
    spec.shared_gate = model.moe.shared_gate;
    spec.router = resolve_router(config);
    spec.balance = resolve_balance(model.moe.balance);
    spec.capacity = resolve_capacity(model.moe.capacity);
    leave_out_idle_losses(spec);
    if (spec.kind == ModelKind::momlp) {
        spec.top_k = 1;
        spec.balance.aux = spec.balance.z = spec.balance.importance = spec.balance.load = 0;
    }
    spec.seq_len = shape.seq_len;
    spec.micro_sequences = config.train.micro_sequences;
    spec.receive_budget = config.parallel.receive_budget;
    spec.chunks = config.parallel.chunks.value_or(1);
    spec.exchange = exchange_settings(config);
    spec.recompute = config.train.recompute == "layer";
    check_padding(spec);
    check_traffic(spec);
    return spec;
}

ExchangeChoice resolve_exchange(const ModelSpec& spec, Mesh& mesh, DType dtype, int threads) {
    if (spec.exchange.name != "auto" || !spec.routes_rows()) return {spec.exchange, {}};
    const auto backend = make_cpu_backend(threads);
    const auto compute = backend->make_stream("compute"), exchange = backend->make_stream("exchange");
    StepContext context{*backend, *compute, *exchange, mesh, Phase::train, 0};
    return choose_exchange(context, exchange_sizes(spec, mesh, dtype), spec.exchange);
}

namespace {

/// Collective over `world`.
std::unique_ptr<Mesh> make_mesh(const Config& config, const ModelSpec& spec, Communicator& world,
                                const RuntimeOptions& options) {
    auto mesh = std::make_unique<Mesh>(world, mesh_shape(config, spec, world, options),
                                       static_cast<int>(spec.experts));
    place_experts(*mesh, config.parallel.placement, spec.layers);
    return mesh;
}

/// Collective over the world where the exchange is `auto`. What the host's trial would measure is not what a
/// GPU's rows take.
ExchangeChoice exchange_of(const Backend& backend, const ModelSpec& spec, Mesh& mesh, DType dtype,
                           int threads) {
    if (backend.name() == "cpu") return resolve_exchange(spec, mesh, dtype, threads);
    ExchangeSettings settings = spec.exchange;
    if (settings.name == "shared_memory")
        throw UserError(
            "parallel.exchange: shared_memory is memory of the host, which no GPU computes in; use flat");
    if (settings.name == "auto") settings.name = "flat";
    return {settings, {}};
}

ModelSpec with_exchange(ModelSpec spec, const ExchangeSettings& settings) {
    spec.exchange = settings;
    return spec;
}

}  // namespace

RankRuntime::RankRuntime(const Config& config, const ModelSpec& spec, Communicator& world,
                         const RuntimeOptions& options)
    : backend(make_device_backend(config, world, stream_mode(spec, options), options)),
      compute(backend->make_stream("compute")),
      exchange(backend->make_stream("exchange")),
      device_world(make_device_world(config, *backend, world)),
      mesh(make_mesh(config, spec, device_world ? *device_world : world, options)),
      store(*backend, options.dtype.value_or(precision_of(config))),
      exchange_choice(exchange_of(*backend, spec, *mesh, store.dtype(), options.threads)),
      model(with_exchange(spec, exchange_choice.settings), *mesh, store, options.defects) {
    if (stream_mode(spec, options) == StreamMode::threads) world.set_beside_compute(true);
    if (config.train.determinism == "elastic") {
        if (backend->name() != "cpu")
            throw UserError("train.determinism: elastic: this machine has a GPU; run.device: cpu");
        const MicroBatches parts{config.train.batch_sequences, config.train.micro_sequences, 1};
        store.sum_exactly(parts.micro_steps());
    }
    if (backend->adds_to_gradients() && (backend->computes() || !may_compute_on_gpu(config)) &&
        adds_gradients_once(config, spec, mesh->world().size()))
        store.sum_once();
    store.keep_packed_copies();
    store.allocate(*compute, static_cast<u64>(config.run.seed));
    StepContext start = context(Phase::train, 0);
    gradient_sync =
        std::make_unique<GradientSync>(start, store, config.parallel.bucket_bytes, options.defects);
    const AdamWSettings settings{config.optimizer.betas[0], config.optimizer.betas[1], config.optimizer.eps,
                                 config.optimizer.weight_decay};
    optimizer = std::make_unique<ShardedOptimizer>(start, store, *gradient_sync, settings,
                                                   static_cast<int>(config.parallel.zero));
    if (mesh->copy_places() > 0)
        copied_experts = std::make_unique<CopiedExperts>(store, gradient_sync->buckets());
    store.pack(*compute);
}

RankRuntime::~RankRuntime() {
    if (std::uncaught_exceptions() > 0) return;
    try {
        compute->synchronize();
        exchange->synchronize();
    } catch (const std::exception& error) {
        log_message(LogLevel::warn, fmt::format("the end of the last step failed: {}", error.what()));
    }
}

StepContext RankRuntime::context(Phase phase, i64 step) {
    StepContext made{*backend, *compute, *exchange, *mesh, phase, step};
    if (phase == Phase::train) made.timeline = &timeline;
    return made;
}

}  // namespace moesaic
