#include "launch/domain_routing.h"

#include <algorithm>
#include <set>

#include "runtime/metrics/domain_information.h"

namespace moesaic {

DomainRouting::DomainRouting(RankRuntime& runtime, RoutingObserver* next, i64 sequences)
    : runtime_(runtime), next_(next), sequences_(sequences) {
    const ModelSpec& spec = runtime.model.spec();
    if (!spec.routes_rows() || sequences == 0) return;
    for (int layer = 0; layer < spec.layers; ++layer) {
        if (spec.has_experts(layer))
            layers_.push_back(
                {layer, 0, std::vector<i64>(static_cast<std::size_t>(sequences * spec.experts), 0)});
    }
}

void DomainRouting::routed(StepContext& context, int layer, const Routing& routing) {
    if (next_ != nullptr) next_->routed(context, layer, routing);
    const auto found =
        std::find_if(layers_.begin(), layers_.end(), [&](const Layer& one) { return one.layer == layer; });
    if (found == layers_.end()) return;
    const ModelSpec& spec = runtime_.model.spec();
    const Communicator& world = runtime_.mesh->world();
    // As evaluate_shard deals out micro-batches.
    const i64 first = (found->micro_steps++ * world.size() + world.rank()) * spec.micro_sequences;
    const i64 choices = routing.expert.cols();
    std::vector<i32> experts(static_cast<std::size_t>(routing.expert.elements()));
    context.backend.copy(context.compute, routing.expert,
                         view_of(experts.data(), {routing.expert.rows(), choices}));
    context.compute.synchronize();
    for (i64 i = 0; i < std::ssize(experts); ++i) {
        const i32 expert = experts[static_cast<std::size_t>(i)];
        if (expert < 0) continue;
        const i64 sequence = first + i / choices / spec.seq_len;
        MOESAIC_ASSERT(sequence < sequences_, "sequence {} of {}", sequence, sequences_);
        ++found->counts[static_cast<std::size_t>(sequence * spec.experts + expert)];
    }
}

std::vector<DomainExperts> DomainRouting::finish(const TaskData& data, const std::vector<i64>& windows,
                                                 u64 seed) {
    if (layers_.empty()) return {};
    MOESAIC_ASSERT(std::ssize(windows) == sequences_, "{} windows, {} sequences", windows.size(), sequences_);
    std::vector<std::size_t> domains;
    for (const i64 window : windows) domains.push_back(data.domain_of_validation(window));
    if (std::set(domains.begin(), domains.end()).size() < 2) return {};
    const auto experts = static_cast<std::size_t>(runtime_.model.spec().experts);
    std::vector<DomainChoices> choices;
    for (Layer& layer : layers_) {
        runtime_.mesh->world().all_reduce(*runtime_.exchange,
                                          view_of(layer.counts.data(), {std::ssize(layer.counts)}),
                                          ReduceOp::sum, {"experts of the domains"});
        runtime_.exchange->synchronize();
        choices.push_back({layer.counts, domains, data.domains(), experts});
    }
    std::vector<DomainExperts> results = domain_experts(choices, seed);
    for (std::size_t i = 0; i < results.size(); ++i) results[i].layer = layers_[i].layer;
    return results;
}

}  // namespace moesaic
