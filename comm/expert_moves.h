// Which rank sends which experts' tensors where, when experts change their places.
#pragma once

#include <map>
#include <vector>

#include "comm/gradient_buckets.h"
#include "comm/mesh.h"

namespace moesaic {

/// New placements by layer; layers that keep theirs are absent.
using NewPlacements = std::map<int, ExpertPlacement>;

/// What this rank sends to the ranks of mesh.same_slice(), and gets from them, of whole layers: for each rank
/// tensor after tensor in the order of the arena, within one by the local index that it gets.
struct ExpertMoves {
    std::vector<ArenaRange> leaving, arriving;  ///< pieces of the arena
    std::vector<i64> send, recv;                ///< [W] elements
    i64 tensors = 0;  ///< that any rank of the group gets, the same on all: 0 where nothing moves
};

/// `mesh` still has the present placements. Experts that keep their position do not move. Every rank of the
/// group finds its own side of the same moves.
[[nodiscard]] ExpertMoves expert_moves(const Mesh& mesh, const ParameterStore& store,
                                       const NewPlacements& next, ArenaRange range);

/// Gives this rank's experts' parameters the names that follow from `next`.
void rename_experts(const Mesh& mesh, const NewPlacements& next, ParameterStore& store);

}  // namespace moesaic
