// Everything one rank of a test needs: a back end, its two streams, the mesh and the context of a step.
#pragma once

#include <memory>
#include <vector>

#include "comm/mesh.h"
#include "comm/step_context.h"
#include "comm/thread_communicator.h"

namespace moesaic {

/// How streams run in a test; deferred ones shuffle differently on every rank.
struct StreamChoice {
    StreamMode mode = StreamMode::inline_execution;
    u64 seed = 0;
};

/// Collective over `world`.
class RankSetup {
  public:
    /// `ranks_per_node` simulates nodes; 0: one node.
    RankSetup(Communicator& world, int expert_parallel, int experts, StreamChoice streams = {},
              int ranks_per_node = 0)
        : backend(make_cpu_backend(1, streams.mode, streams.seed + static_cast<u64>(world.rank()))),
          compute(backend->make_stream("compute")),
          exchange(backend->make_stream("exchange")),
          mesh(world, {.expert = expert_parallel, .ranks_per_node = ranks_per_node}, experts),
          context{*backend, *compute, *exchange, mesh} {}
    RankSetup(Communicator& world, int expert_parallel, int experts, StreamChoice streams,
              const std::vector<int>& node_of_rank)
        : backend(make_cpu_backend(1, streams.mode, streams.seed + static_cast<u64>(world.rank()))),
          compute(backend->make_stream("compute")),
          exchange(backend->make_stream("exchange")),
          mesh(world, {.expert = expert_parallel}, experts, node_of_rank),
          context{*backend, *compute, *exchange, mesh} {}

    /// Waits for compute and returns what `view` holds then.
    template <Element T>
    [[nodiscard]] std::vector<T> read(ConstTensorView view) {
        compute->synchronize();
        const T* data = view.as<T>();
        return {data, data + view.elements()};
    }
    /// At the end of a rank's work: nothing stays queued while peers wait for it.
    void drain() {
        compute->synchronize();
        exchange->synchronize();
    }

    std::unique_ptr<Backend> backend;
    std::unique_ptr<Stream> compute, exchange;
    Mesh mesh;
    StepContext context;
};

}  // namespace moesaic
