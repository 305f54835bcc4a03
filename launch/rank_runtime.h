// Everything that one rank builds from a configuration: device, layout, model, gradients, optimizer.
#pragma once

#include <memory>

#include "comm/copied_experts.h"
#include "comm/exchange/choose_exchange.h"
#include "comm/gradient_sync.h"
#include "comm/mesh.h"
#include "comm/planted_defects.h"
#include "comm/sharded_optimizer.h"
#include "comm/step_context.h"
#include "layers/model.h"
#include "runtime/config/config.h"
#include "runtime/data/task_data.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// What differs between a run and a check of it.
struct RuntimeOptions {
    std::optional<DType> dtype;          ///< instead of train.precision
    std::optional<int> expert_parallel;  ///< instead of parallel.expert
    std::optional<int> expert_tensor;    ///< instead of parallel.expert_tensor; then give the former too
    int threads = 1;                     ///< worker threads of this rank
    StreamMode stream_mode = StreamMode::inline_execution;
    u64 shuffle_seed = 0;  ///< of deferred streams; every rank shuffles differently
    PlantedDefects defects;
};

/// train.precision: the type of weights and activations.
[[nodiscard]] DType precision_of(const Config& config);

/// Resolves every `auto` that a model needs; the shape comes from the data, model.vocabulary wins over it.
[[nodiscard]] ModelSpec resolve_model(const Config& config, const SampleShape& shape);
/// The same for a language model with task.data.seq_len; `vocabulary` comes from the tokenizer.
[[nodiscard]] ModelSpec resolve_model(const Config& config, i64 vocabulary);

/// The expert-parallel size of a world (contract, "Layout"): the configured one, or the largest that fits.
[[nodiscard]] int resolve_expert_parallel(const Config& config, const ModelSpec& spec, int world,
                                          int ranks_per_node);

class RankRuntime {
  public:
    /// Collective over `world`: makes and exercises every communicator.
    RankRuntime(const Config& config, const ModelSpec& spec, Communicator& world,
                const RuntimeOptions& options);
    /// Waits for what is enqueued: it reads this object, and other ranks wait for its collectives. Not after
    /// a failure, when they will not come.
    ~RankRuntime();
    RankRuntime(const RankRuntime&) = delete;
    RankRuntime& operator=(const RankRuntime&) = delete;

    /// With the timeline in phase train.
    [[nodiscard]] StepContext context(Phase phase, i64 step);

    StepTimeline timeline;  // of training steps; streams that write to it end before it
    std::unique_ptr<Backend> backend;
    std::unique_ptr<Stream> compute, exchange;
    std::unique_ptr<Communicator> device_world;  ///< over the same ranks, where one moves device memory
    std::unique_ptr<Mesh> mesh;
    ParameterStore store;
    ExchangeChoice exchange_choice;
    Model model;
    std::unique_ptr<GradientSync> gradient_sync;
    std::unique_ptr<ShardedOptimizer> optimizer;
    std::unique_ptr<CopiedExperts> copied_experts;  // where there are places for any
};

/// Collective over the world where the exchange of `spec` is `auto`. Measured on a back end of its own: what
/// that takes is given back.
[[nodiscard]] ExchangeChoice resolve_exchange(const ModelSpec& spec, Mesh& mesh, DType dtype, int threads);

/// Worker threads of each of `local_ranks` ranks on this machine: the cores this process may use, shared out.
[[nodiscard]] int resolve_threads(std::optional<i64> configured, int local_ranks);

}  // namespace moesaic
