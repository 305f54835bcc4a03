// How ranks share the work: the world as replicas of expert-parallel groups.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/expert_placement.h"
#include "comm/node_grid.h"
#include "runtime/parameter.h"

namespace moesaic {

/// Ranks along each axis. Axes that are 1 until they are built come last; replicas are what is left of the
/// world.
struct MeshShape {
    int expert = 1;
    int expert_tensor = 1;
    int tensor = 1;
    int pipeline = 1;
    int context = 1;
    int ranks_per_node = 0;  ///< consecutive ranks that count as a node; 0: as the machines are
};

/// The largest divisor of `experts` that divides both the ranks of one node and the world.
[[nodiscard]] int choose_expert_parallel(int experts, int world, int ranks_per_node);

/// Throws UserError, naming `parallel.expert` and what would be right, where `shape` does not fit the model
/// and the number of ranks.
void check_mesh_shape(const MeshShape& shape, int experts, int world);

/// rank = replica * ep + ep_rank: expert-parallel ranks are neighbours. ep_rank holds the experts at its
/// local_experts() positions of a layer's placement. Nobody else divides experts or ranks.
class Mesh {
  public:
    /// Collective over `world`, which has to outlive this. Splits the world and tries every group with a
    /// small exchange, so that a broken group shows at start-up.
    Mesh(Communicator& world, const MeshShape& shape, int experts);
    /// The same with a node for each rank of the world, whatever the machines say.
    Mesh(Communicator& world, const MeshShape& shape, int experts, const std::vector<int>& node_of_rank);

    [[nodiscard]] Communicator& world() const { return world_; }
    /// The ranks that together hold all experts once, in order of their positions; size expert_parallel().
    [[nodiscard]] Communicator& experts() const { return *experts_; }
    /// The ranks that hold the same experts as this one; size world / expert_parallel().
    [[nodiscard]] Communicator& replicas() const { return *replicas_; }
    /// How experts() lies on nodes.
    [[nodiscard]] const NodeGrid& grid() const { return grid_; }
    /// The ranks of experts() on this rank's node, by local rank.
    [[nodiscard]] Communicator& node() const { return node_ ? *node_ : *experts_; }
    /// The ranks of experts() with this one's local rank, one on each node; only where grid() is even and has
    /// several nodes.
    [[nodiscard]] Communicator& across_nodes() const;

    [[nodiscard]] int expert_parallel() const { return shape_.expert; }
    [[nodiscard]] int replica() const { return world_.rank() / shape_.expert; }
    [[nodiscard]] int total_experts() const { return total_experts_; }
    [[nodiscard]] int local_experts() const { return total_experts_ / shape_.expert; }

    /// Which experts of a layer lie where; in the order of their numbers until place_experts says otherwise.
    [[nodiscard]] const ExpertPlacement& placement(int layer) const;
    /// The same on every rank, and not between a forward and its backward. Moves nothing: before a model is
    /// made, or by ShardedOptimizer::move_experts.
    void place_experts(int layer, ExpertPlacement placement);
    /// Global numbers of a layer's experts on a rank of experts(), by local index.
    [[nodiscard]] std::span<const i32> experts_of(int layer, int rank) const;
    /// Those of this rank.
    [[nodiscard]] std::span<const i32> own_experts(int layer) const {
        return experts_of(layer, experts_->rank());
    }
    /// Memory that all groups hold (Communicator::reserved_bytes).
    [[nodiscard]] i64 reserved_bytes() const;
    /// Their memory that other ranks reach too (Communicator::shared_bytes).
    [[nodiscard]] i64 shared_bytes() const;
    /// Inside of all-to-alls and gathers of expert-parallel groups, waiting included.
    [[nodiscard]] double exchange_seconds() const;
    /// The expert that another rank of experts() holds where this rank holds that of `parameter`.
    [[nodiscard]] i32 counterpart(const Parameter& parameter, int rank) const;
    /// The rank within experts() that holds this expert of a layer.
    [[nodiscard]] int expert_owner(int layer, int expert) const;

  private:
    void split_by_node();
    [[nodiscard]] std::vector<Communicator*> groups() const;

    Communicator& world_;
    MeshShape shape_;
    int total_experts_;
    ExpertPlacement contiguous_;
    std::map<int, ExpertPlacement> placements_;  // of layers where another was set
    std::unique_ptr<Communicator> experts_, replicas_;
    NodeGrid grid_;
    std::unique_ptr<Communicator> node_, across_nodes_;  // only where experts() spans nodes
};

}  // namespace moesaic
