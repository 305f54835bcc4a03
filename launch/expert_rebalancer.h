// Moves experts between ranks while training, so that ranks' loads are even: parallel.placement load_aware.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "comm/expert_moves.h"
#include "runtime/metrics/records.h"

namespace moesaic {

class RankRuntime;
struct PlacementConfig;

/// Places every layer's experts as the configuration has it at the start; the same on every rank.
void place_experts(Mesh& mesh, const PlacementConfig& config, int layers);

/// Lives on every rank. Decides by the exact counts of the global batch, which all ranks know, in whole
/// numbers: so all decide alike, and the order of collectives stays one. No number of the training depends on
/// where experts are, so neither does a checkpoint, and a run that is resumed begins with its first
/// placement.
class ExpertRebalancer {
  public:
    ExpertRebalancer(RankRuntime& runtime, const PlacementConfig& config);

    /// Collective over the world, after the update of `step`. `counts` [MoE layers, E] are the choices of the
    /// step's batch. Every `every` steps: places experts anew by the choices since the last time, and moves
    /// their weights and optimizer state; then copies of the hottest take the places that there are for them,
    /// whose weights CopiedExperts::refresh brings. Returns what was moved or copied, if anything.
    [[nodiscard]] std::optional<PlacementRecord> after_step(i64 step, std::span<const i64> counts);

  private:
    using NewCopies = std::map<int, ExpertCopies>;  // by layer; layers that keep theirs are absent
    [[nodiscard]] NewPlacements decide(PlacementRecord& record, NewCopies& new_copies) const;
    [[nodiscard]] std::span<const i64> counts_of(std::size_t index) const;
    /// Collective over the world.
    void move(const NewPlacements& next, NewCopies copies, PlacementRecord& record);

    RankRuntime& runtime_;
    i64 every_;
    double least_gain_;
    std::vector<int> layers_;  // with experts
    std::vector<i64> counts_;  // [MoE layers, E] since the last decision
};

}  // namespace moesaic
