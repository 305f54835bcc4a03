// AdamW whose moments, and master weights of a bf16 model, are spread over the ranks that hold the same
// parameters.
#pragma once

#include <functional>
#include <vector>

#include "comm/expert_moves.h"
#include "comm/gradient_sync.h"

namespace moesaic {

struct AdamWSettings {
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double weight_decay = 0.1;  ///< only where Parameter::decays()
};

/// A parameter as a checkpoint keeps it, of its shape and in the store's real type: of a bf16 model the value
/// is the master weight, of which the store holds the rounding.
struct ParameterState {
    ConstTensorView value, first_moment, second_moment;
};

/// With `zero` 1 a rank holds moments and updates parameters only for the slices that GradientSync gave it;
/// with 0 it holds and updates all of its parameters. The same bits either way. Where the store is bf16, the
/// update goes to master weights in f32, held like the moments, and the store gets them rounded.
class ShardedOptimizer {
  public:
    ShardedOptimizer(StepContext& context, ParameterStore& store, const GradientSync& sync,
                     const AdamWSettings& settings, int zero);

    /// Collective over mesh.world() and mesh.replicas(), after GradientSync::finish. Gradients are multiplied
    /// by `clip_factor`; `step` counts from 1. Afterwards every rank holds all updated values of its
    /// parameters.
    void step(StepContext& context, double lr, double clip_factor, i64 step);

    /// The state may be read by the host during the call.
    using StateVisitor = std::function<void(const Parameter&, const ParameterState&)>;
    /// Collective over mesh.world() and mesh.replicas(). Shows every parameter of this rank, gathered one
    /// bucket at a time.
    void visit_state(StepContext& context, const StateVisitor& visitor);
    /// Sets the parameter's value in the store and keeps the part of its state that this rank holds. Returns
    /// when the state has been read.
    void load_state(StepContext& context, const Parameter& parameter, const ParameterState& state);

    /// Collective over mesh.same_slice() and mesh.replicas(), between steps. Places experts anew: values,
    /// moments and masters go where `next` has them, every group of replicas moves its own copy, and from
    /// then on names of parameters, the norm and plans follow. Takes no memory: the gradients and their sums,
    /// which nobody needs between steps, are overwritten. Changes no bit of any expert.
    void move_experts(StepContext& context, GradientSync& sync, const NewPlacements& next);

    /// Bytes of moments, and of master weights, held by this rank.
    [[nodiscard]] i64 moment_bytes() const;
    [[nodiscard]] i64 master_bytes() const;

  private:
    /// Consecutive parameters of one arena with one weight decay.
    struct Run {
        ArenaRange range;
        bool decays = false;
    };
    struct Shard {
        GradientBucket bucket;
        ArenaRange held;      // of the arena
        i64 state_begin = 0;  // of held.begin in the moments and masters
        std::vector<Run> runs;
    };
    [[nodiscard]] std::vector<Run> runs_in(Placement placement, ArenaRange range) const;
    void update(StepContext& context, const Shard& shard, double lr, double clip_factor, i64 step);
    void set_initial_masters();
    /// Collective over the bucket's group. One kind of state of a whole bucket, in `all`.
    void gather_state(StepContext& context, const Shard& shard, const Tensor& state, TensorView all,
                      Label label);
    /// Of several buckets together: all of the experts' arena, where one exchange can move it.
    [[nodiscard]] std::vector<ArenaRange> ranges_to_move() const;
    [[nodiscard]] std::vector<const Shard*> expert_shards_in(ArenaRange range) const;
    /// Collective over mesh.same_slice(). The experts' values in a range.
    void move_values(StepContext& context, ArenaRange range, const ExpertMoves& moves);
    /// Collective over mesh.same_slice() and mesh.replicas(). One kind of state of the experts in a range.
    void move_state(StepContext& context, ArenaRange range, const ExpertMoves& moves, Tensor& state);

    ParameterStore& store_;
    AdamWSettings settings_;
    int zero_;
    std::vector<Shard> shards_;  // in the buckets' order
    Tensor first_, second_;      // [elements held]
    Tensor master_;              // f32 [elements held]; empty but for a bf16 store
};

}  // namespace moesaic
