#include "launch/expert_rebalancer.h"

#include <algorithm>
#include <chrono>

#include "launch/rank_runtime.h"

namespace moesaic {

void place_experts(Mesh& mesh, const PlacementConfig& config, int layers) {
    if (mesh.expert_parallel() > 1) mesh.reserve_copies(config.copies);
    if (config.kind != "permuted") return;
    for (int layer = 0; layer < layers; ++layer) {
        mesh.place_experts(layer,
                           permuted_placement(mesh.total_experts(), static_cast<u64>(config.seed), layer));
    }
}

ExpertRebalancer::ExpertRebalancer(RankRuntime& runtime, const PlacementConfig& config)
    : runtime_(runtime), every_(config.every), least_gain_(config.min_gain) {
    const ModelSpec& spec = runtime.model.spec();
    for (int layer = 0; layer < spec.layers; ++layer) {
        if (spec.has_experts(layer)) layers_.push_back(layer);
    }
    counts_.assign(layers_.size() * static_cast<std::size_t>(spec.experts), 0);
}

std::span<const i64> ExpertRebalancer::counts_of(std::size_t index) const {
    const auto experts = static_cast<std::size_t>(runtime_.mesh->total_experts());
    return std::span(counts_).subspan(index * experts, experts);
}

NewPlacements ExpertRebalancer::decide(PlacementRecord& record, NewCopies& new_copies) const {
    const Mesh& mesh = *runtime_.mesh;
    const int ranks = mesh.expert_parallel();
    NewPlacements changed;
    for (std::size_t index = 0; index < layers_.size(); ++index) {
        const ExpertPlacement& now = mesh.placement(layers_[index]);
        const ExpertCopies& copies_now = mesh.copies(layers_[index]);
        ExpertPlacement next = placement_by_load(now, counts_of(index), ranks, least_gain_);
        ExpertCopies copies = copies_by_load(next, counts_of(index), ranks, mesh.copy_places());
        const bool same_copies = copies == copies_now || (!copies.any() && !copies_now.any());
        if (next == now && same_copies) continue;
        LayerPlacement& layer = record.layers.emplace_back();
        layer.layer = layers_[index];
        layer.max_over_mean_before = rank_load_max_over_mean(now, copies_now, counts_of(index), ranks);
        layer.max_over_mean_after = rank_load_max_over_mean(next, copies, counts_of(index), ranks);
        for (i64 place = 0; place < std::ssize(copies.places); ++place) {
            const i32 expert = copies.places[static_cast<std::size_t>(place)].expert;
            if (expert < 0) continue;
            layer.copies.push_back(expert);
            layer.copy_ranks.push_back(place / mesh.copy_places());
        }
        if (!same_copies) new_copies.emplace(layers_[index], std::move(copies));
        if (next == now) continue;
        for (i64 expert = 0; expert < mesh.total_experts(); ++expert) {
            const auto at = static_cast<std::size_t>(expert);
            const i64 to = next.position_of[at] / mesh.local_experts();
            if (now.position_of[at] / mesh.local_experts() == to) continue;
            layer.experts.push_back(expert);
            layer.ranks.push_back(to);
        }
        changed.emplace(layers_[index], std::move(next));
    }
    return changed;
}

void ExpertRebalancer::move(const NewPlacements& next, NewCopies copies, PlacementRecord& record) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    Communicator& world = runtime_.mesh->world();
    const i64 before = world.ledger().of(kMovedExpertsPhase).to_others();
    StepContext context = runtime_.context(Phase::train, record.step);
    if (!next.empty()) runtime_.optimizer->move_experts(context, *runtime_.gradient_sync, next);
    for (auto& [layer, of_layer] : copies) runtime_.mesh->copy_experts(layer, std::move(of_layer));
    runtime_.compute->synchronize();
    double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    record.bytes = world.ledger().of(kMovedExpertsPhase).to_others() - before;
    world.all_reduce(*runtime_.exchange, view_of(&record.bytes, {1}), ReduceOp::sum, {"bytes moved"});
    world.all_reduce(*runtime_.exchange, view_of(&seconds, {1}), ReduceOp::max, {"time of moving"});
    runtime_.exchange->synchronize();
    record.seconds = seconds;
}

std::optional<PlacementRecord> ExpertRebalancer::after_step(i64 step, std::span<const i64> counts) {
    std::ranges::transform(counts_, counts, counts_.begin(), std::plus());
    if (step % every_ != 0) return {};
    PlacementRecord record;
    record.step = step;
    NewCopies copies;
    const NewPlacements next = decide(record, copies);
    std::ranges::fill(counts_, 0);
    if (record.layers.empty()) return {};
    move(next, std::move(copies), record);
    return record;
}

}  // namespace moesaic
