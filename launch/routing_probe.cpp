#include "launch/routing_probe.h"

#include <algorithm>

namespace moesaic {

RoutingProbe::RoutingProbe(RankRuntime& runtime)
    : runtime_(runtime),
      seq_len_(runtime.model.spec().seq_len),
      micro_sequences_(runtime.model.spec().micro_sequences),
      sequences_(std::max<i64>(1, kTokens / seq_len_)) {
    const ModelSpec& spec = runtime.model.spec();
    if (!spec.routes_rows()) return;
    for (int layer = 0; layer < spec.layers; ++layer) {
        if (spec.has_experts(layer)) layers_.push_back({layer, 0, {}});
    }
}

void RoutingProbe::begin() {
    for (Layer& layer : layers_) {
        layer.micro_steps = 0;
        layer.chosen.clear();
    }
}

void RoutingProbe::routed(StepContext& context, int layer, const Routing& routing) {
    const auto found =
        std::find_if(layers_.begin(), layers_.end(), [&](const Layer& one) { return one.layer == layer; });
    MOESAIC_ASSERT(found != layers_.end(), "layer {} has no experts", layer);
    const Communicator& world = runtime_.mesh->world();
    const i64 first = (found->micro_steps++ * world.size() + world.rank()) * micro_sequences_;
    const i64 rows = std::min(std::max<i64>(sequences_ - first, 0) * seq_len_, routing.expert.rows());
    if (rows == 0) return;
    choices_ = routing.expert.cols();
    std::vector<i32>& chosen = found->chosen.emplace_back(static_cast<std::size_t>(rows * choices_));
    // The memory of a vector stays where it is when the vector of vectors grows.
    context.backend.copy(context.compute, routing.expert.slice_rows(0, rows),
                         view_of(chosen.data(), {rows, choices_}));
}

std::vector<RoutingChange> RoutingProbe::finish() {
    runtime_.compute->synchronize();
    std::vector<std::vector<i32>> now;
    std::vector<i64> counts(layers_.size() + 1, 0);  // changed tokens by layer, and all tokens
    for (std::size_t index = 0; index < layers_.size(); ++index) {
        std::vector<i32>& all = now.emplace_back();
        for (const std::vector<i32>& part : layers_[index].chosen)
            all.insert(all.end(), part.begin(), part.end());
        const std::vector<i32>* const before = looks_ > 0 ? &before_[index] : nullptr;
        for (i64 at = 0; at < std::ssize(all); at += choices_) {
            const auto token = all.begin() + at;
            std::sort(token, token + choices_);
            if (before != nullptr && !std::equal(token, token + choices_, before->begin() + at))
                ++counts[index];
        }
        if (index == 0 && !all.empty()) counts.back() = std::ssize(all) / choices_;
    }
    before_ = std::move(now);
    begin();
    if (looks_++ == 0 || layers_.empty()) return {};
    runtime_.mesh->world().all_reduce(*runtime_.exchange,
                                      view_of(counts.data(), {static_cast<i64>(counts.size())}),
                                      ReduceOp::sum, {"changed experts of the probe"});
    runtime_.exchange->synchronize();
    std::vector<RoutingChange> changes;
    for (std::size_t index = 0; index < layers_.size(); ++index) {
        const double share =
            static_cast<double>(counts[index]) / static_cast<double>(std::max<i64>(counts.back(), 1));
        changes.push_back({layers_[index].layer, share});
    }
    return changes;
}

}  // namespace moesaic
