// AdamW whose moments are spread over the ranks that hold the same parameters.
#pragma once

#include <functional>
#include <vector>

#include "comm/gradient_sync.h"

namespace moesaic {

struct AdamWSettings {
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double weight_decay = 0.1;  ///< only where Parameter::decays()
};

/// With `zero` 1 a rank holds moments and updates parameters only for the slices that GradientSync gave it;
/// with 0 it holds and updates all of its parameters. The same bits either way.
class ShardedOptimizer {
  public:
    ShardedOptimizer(StepContext& context, ParameterStore& store, const GradientSync& sync,
                     const AdamWSettings& settings, int zero);

    /// Collective over mesh.world() and mesh.replicas(), after GradientSync::finish. Gradients are multiplied
    /// by `clip_factor`; `step` counts from 1. Afterwards every rank holds all updated values of its
    /// parameters.
    void step(StepContext& context, double lr, double clip_factor, i64 step);

    /// The moments have the parameter's shape and may be read by the host during the call.
    using StateVisitor = std::function<void(const Parameter&, ConstTensorView first, ConstTensorView second)>;
    /// Collective over mesh.world() and mesh.replicas(). Shows the moments of every parameter of this rank,
    /// gathered one bucket at a time.
    void visit_state(StepContext& context, const StateVisitor& visitor);
    /// Keeps the part of a parameter's moments that this rank holds. Returns when they have been read.
    void load_state(StepContext& context, const Parameter& parameter, ConstTensorView first,
                    ConstTensorView second);

    /// Bytes of moments held by this rank.
    [[nodiscard]] i64 moment_bytes() const;

  private:
    /// Consecutive parameters of one arena with one weight decay.
    struct Run {
        ArenaRange range;
        bool decays = false;
    };
    struct Shard {
        GradientBucket bucket;
        ArenaRange held;       // of the arena
        i64 moment_begin = 0;  // of held.begin in the moments
        std::vector<Run> runs;
    };
    [[nodiscard]] std::vector<Run> runs_in(Placement placement, ArenaRange range) const;
    void update(StepContext& context, const Shard& shard, double lr, double clip_factor, i64 step);
    /// Collective over the bucket's group. One moment of a whole bucket.
    [[nodiscard]] Tensor gather_moment(StepContext& context, const Shard& shard, const Tensor& moment);

    ParameterStore& store_;
    AdamWSettings settings_;
    int zero_;
    std::vector<Shard> shards_;  // in the buckets' order
    Tensor first_, second_;      // [elements held]
};

}  // namespace moesaic
