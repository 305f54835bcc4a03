// Sums gradients over the ranks, bucket by bucket while the backward still runs, and measures their norm.
#pragma once

#include <span>
#include <vector>

#include "comm/gradient_buckets.h"
#include "comm/mesh.h"
#include "comm/planted_defects.h"
#include "comm/step_context.h"

namespace moesaic {

/// Replicated parameters' gradients are summed over mesh.world(), experts' over mesh.replicas() and, of what
/// every slice of an expert holds whole, over mesh.slices() before: the loss is a sum over all tokens of the
/// step divided by their number, so no other factor exists. Each sum is made in f64 by the owner of its
/// slice, in rank order, and rounded once into the gradient arena; what a rank does not own there is zero
/// afterwards. The order of the collectives depends on the configuration only.
class GradientSync {
  public:
    /// `store` is allocated.
    GradientSync(StepContext& context, ParameterStore& store, i64 bucket_bytes,
                 const PlantedDefects& defects = {});

    /// To be called in the last micro-step for every segment, last to first, as soon as its gradients are
    /// complete; folds them. Buckets that are complete wait for start(); compute may not touch them until
    /// finish().
    void segment_ready(StepContext& context, int segment);
    /// Collective over mesh.world(), mesh.slices() and mesh.replicas(). To be called where the backward
    /// begins with work that needs no other rank: sums the buckets that wait. Rows of the experts would
    /// otherwise wait behind them, since collectives have one order.
    void start(StepContext& context);
    /// Collective as start(), after all segments: what compute does from now on sees the sums.
    void finish(StepContext& context);

    /// Collective over mesh.world(), after finish(). L2 norm over every logical parameter counted once: sums
    /// of squares per block by the owner, added in an order that no layout changes. The same bits on every
    /// rank. Waits for the device.
    [[nodiscard]] double gradient_norm(StepContext& context);

    /// Collective over the bucket's group. The owners' parts of an arena become everybody's.
    static void gather_owned(StepContext& context, const GradientBucket& bucket, TensorView arena,
                             std::string_view operation);
    /// Collective over mesh.world() and mesh.replicas(), after finish(). Every rank gets the sums of all of
    /// its parameters.
    void gather_gradients(StepContext& context);

    /// After experts were given other names: where their blocks stand in the norm.
    void experts_moved(const StepContext& context) { order_for_norm(context); }

    /// In backward order, replicated ones first.
    [[nodiscard]] std::span<const GradientBucket> buckets() const { return buckets_; }
    /// What this rank owns of an arena, one range per bucket; pieces_in() names the logical tensors.
    [[nodiscard]] std::vector<ArenaRange> owned(Placement placement) const;
    /// The ranks that hold the same parameters of this placement.
    [[nodiscard]] static Communicator& group_of(const StepContext& context, Placement placement);

  private:
    void order_for_norm(const StepContext& context);
    /// Collective over the bucket's group.
    void sum(StepContext& context, const GradientBucket& bucket);
    /// Collective over mesh.slices().
    void sum_over_slices(StepContext& context, const GradientBucket& bucket);

    ParameterStore& store_;
    PlantedDefects defects_;
    std::vector<GradientBucket> buckets_;
    int segments_ = 0, next_segment_ = 0;
    std::vector<std::size_t> waiting_;  // complete buckets, in the order in which they became so
    std::vector<i64> norm_offset_;      // [parameters] where a tensor's blocks stand in canonical order
    std::vector<double> norm_sums_;     // [blocks of all logical tensors]
};

}  // namespace moesaic
