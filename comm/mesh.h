// How ranks share the work: the world as replicas of expert-parallel groups.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/expert_copies.h"
#include "comm/expert_placement.h"
#include "comm/node_grid.h"
#include "runtime/parameter.h"

namespace moesaic {

/// Ranks along each axis: world = replicas * expert * expert_tensor. Axes that are 1 until they are built
/// come last; replicas are what is left of the world.
struct MeshShape {
    int expert = 1;
    int expert_tensor = 1;  ///< slices into which every expert's width is cut
    int tensor = 1;
    int pipeline = 1;
    int context = 1;
    int ranks_per_node = 0;  ///< consecutive ranks that count as a node; 0: as the machines are
};

/// The largest divisor of `experts` that divides both the ranks of one node and the world, of which each
/// expert-parallel one is `expert_tensor` ranks.
[[nodiscard]] int choose_expert_parallel(int experts, int world, int ranks_per_node, int expert_tensor = 1);

/// Throws UserError, naming the key and what would be right, where `shape` does not fit the model
/// and the number of ranks.
void check_mesh_shape(const MeshShape& shape, int experts, int world);

/// rank = (replica * ep + ep_rank) * t + slice: expert-parallel ranks are neighbours, and so are the t slices
/// of one of them. ep_rank holds the experts at its local_experts() positions of a layer's placement; its
/// rank of slice s holds columns [s F/t, (s+1) F/t) of their hidden layer. A row goes to all t slices, whose
/// results are parts of one sum. Nobody else divides experts or ranks.
class Mesh {
  public:
    /// Collective over `world`, which has to outlive this. Splits the world and tries every group with a
    /// small exchange, so that a broken group shows at start-up.
    Mesh(Communicator& world, const MeshShape& shape, int experts);
    /// The same with a node for each rank of the world, whatever the machines say.
    Mesh(Communicator& world, const MeshShape& shape, int experts, const std::vector<int>& node_of_rank);

    [[nodiscard]] Communicator& world() const { return world_; }
    /// The ranks that together hold all experts once, in order of their positions, slice by slice; size
    /// expert_parallel() * expert_tensor().
    [[nodiscard]] Communicator& experts() const { return *experts_; }
    /// The ranks that hold the same slices of the same experts as this one; size world / experts().size().
    [[nodiscard]] Communicator& replicas() const { return *replicas_; }
    /// The ranks of experts() that hold this rank's slice of all experts; size expert_parallel().
    [[nodiscard]] Communicator& same_slice() const { return same_slice_ ? *same_slice_ : *experts_; }
    /// The ranks of experts() that hold this rank's experts, by slice; only where expert_tensor() > 1.
    [[nodiscard]] Communicator& slices() const;
    /// How experts() lies on nodes.
    [[nodiscard]] const NodeGrid& grid() const { return grid_; }
    /// The ranks of experts() on this rank's node, by local rank.
    [[nodiscard]] Communicator& node() const { return node_ ? *node_ : *experts_; }
    /// The ranks of experts() with this one's local rank, one on each node; only where grid() is even and has
    /// several nodes.
    [[nodiscard]] Communicator& across_nodes() const;

    [[nodiscard]] int expert_parallel() const { return shape_.expert; }
    [[nodiscard]] int expert_tensor() const { return shape_.expert_tensor; }
    [[nodiscard]] int replica() const { return world_.rank() / experts_->size(); }
    /// Which of the expert-parallel ranks this is a slice of.
    [[nodiscard]] int expert_rank() const { return experts_->rank() / shape_.expert_tensor; }
    /// Which slice of its experts this rank holds.
    [[nodiscard]] int slice() const { return experts_->rank() % shape_.expert_tensor; }
    [[nodiscard]] int total_experts() const { return total_experts_; }
    /// Of which a rank holds a slice.
    [[nodiscard]] int local_experts() const { return total_experts_ / shape_.expert; }

    /// Which experts of a layer lie where; in the order of their numbers until place_experts says otherwise.
    [[nodiscard]] const ExpertPlacement& placement(int layer) const;
    /// The same on every rank, and not between a forward and its backward. Moves nothing: before a model is
    /// made, or by ShardedOptimizer::move_experts.
    void place_experts(int layer, ExpertPlacement placement);
    /// Places for copies of other ranks' experts on every expert-parallel rank; 0 until reserve_copies.
    [[nodiscard]] i64 copy_places() const { return copy_places_; }
    /// Experts and copies of a rank, in this order the groups of rows that it receives.
    [[nodiscard]] i64 local_places() const { return local_experts() + copy_places_; }
    /// Before a model is made.
    void reserve_copies(i64 places_of_rank) { copy_places_ = places_of_rank; }
    /// Which copies of a layer there are; none until copy_experts says otherwise.
    [[nodiscard]] const ExpertCopies& copies(int layer) const;
    /// The same on every rank, and not between a forward and its backward. Sends nothing: CopiedExperts does.
    void copy_experts(int layer, ExpertCopies copies) { copies_[layer] = std::move(copies); }

    /// Global numbers of a layer's experts on an expert-parallel rank, by local index.
    [[nodiscard]] std::span<const i32> experts_of(int layer, int expert_rank) const;
    /// Those of this rank.
    [[nodiscard]] std::span<const i32> own_experts(int layer) const {
        return experts_of(layer, expert_rank());
    }
    /// Memory that all groups hold (Communicator::reserved_bytes).
    [[nodiscard]] i64 reserved_bytes() const;
    /// Their memory that other ranks reach too (Communicator::shared_bytes).
    [[nodiscard]] i64 shared_bytes() const;
    /// Inside of all-to-alls and gathers of expert-parallel groups, waiting included.
    [[nodiscard]] double exchange_seconds() const;
    /// Of these (Communicator::waiting_seconds).
    [[nodiscard]] double exchange_waiting_seconds() const;
    /// Inside of collectives of any group.
    [[nodiscard]] double collective_seconds() const;
    /// The expert that another expert-parallel rank holds where this one holds that of `parameter`.
    [[nodiscard]] i32 counterpart(const Parameter& parameter, int expert_rank) const;
    /// The expert-parallel rank that holds this expert of a layer.
    [[nodiscard]] int expert_owner(int layer, int expert) const;

  private:
    void split_by_slice(const std::vector<int>& expert_nodes);
    void split_by_node();
    [[nodiscard]] std::vector<Communicator*> groups() const;
    [[nodiscard]] std::vector<const Communicator*> exchange_groups() const;

    Communicator& world_;
    MeshShape shape_;
    int total_experts_;
    ExpertPlacement contiguous_;
    std::map<int, ExpertPlacement> placements_;  // of layers where another was set
    i64 copy_places_ = 0;
    std::map<int, ExpertCopies> copies_;  // of layers where there are any
    std::unique_ptr<Communicator> experts_, replicas_;
    std::unique_ptr<Communicator> same_slice_, slices_;  // only where there are slices
    NodeGrid grid_;
    std::unique_ptr<Communicator> node_, across_nodes_;  // only where experts() spans nodes
};

}  // namespace moesaic
