// How ranks share the work: the world as replicas of expert-parallel groups.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "comm/node_grid.h"

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

/// rank = replica * ep + ep_rank: expert-parallel ranks are neighbours. Experts lie on ep_rank in consecutive
/// blocks of local_experts(). Nobody else divides experts or ranks.
class Mesh {
  public:
    /// Collective over `world`, which has to outlive this. Splits the world and tries every group with a
    /// small exchange, so that a broken group shows at start-up.
    Mesh(Communicator& world, const MeshShape& shape, int experts);
    /// The same with a node for each rank of the world, whatever the machines say.
    Mesh(Communicator& world, const MeshShape& shape, int experts, const std::vector<int>& node_of_rank);

    [[nodiscard]] Communicator& world() const { return world_; }
    /// The ranks that together hold all experts once, in order of their experts; size expert_parallel().
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
    [[nodiscard]] int first_expert() const { return experts_->rank() * local_experts(); }
    /// Memory that all groups hold (Communicator::reserved_bytes).
    [[nodiscard]] i64 reserved_bytes() const;
    /// Inside of all-to-alls and gathers of expert-parallel groups, waiting included.
    [[nodiscard]] double exchange_seconds() const;
    /// The rank within experts() that holds this expert.
    [[nodiscard]] int expert_owner(int expert) const;

  private:
    void split_by_node();
    [[nodiscard]] std::vector<Communicator*> groups() const;

    Communicator& world_;
    MeshShape shape_;
    int total_experts_;
    std::unique_ptr<Communicator> experts_, replicas_;
    NodeGrid grid_;
    std::unique_ptr<Communicator> node_, across_nodes_;  // only where experts() spans nodes
};

}  // namespace moesaic
