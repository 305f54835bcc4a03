#include "comm/copied_experts.h"

#include <algorithm>
#include <utility>

namespace moesaic {

CopiedExperts::CopiedExperts(ParameterStore& store) : store_(store) {
    const auto add = [&](const ParameterStore& from, std::vector<std::size_t> Tensors::*indices) {
        std::map<int, std::map<std::string, std::size_t>> index;  // by layer and the name that expert 0 has
        for (std::size_t i = 0; i < from.parameters().size(); ++i) {
            const Parameter& parameter = from.parameters()[i];
            if (parameter.placement != Placement::expert) continue;
            std::vector<Tensors>& tensors = layers_[parameter.layer];
            auto& known = index[parameter.layer];
            const auto [found, first] = known.try_emplace(parameter.name_for_expert(0), known.size());
            if (found->second == tensors.size()) tensors.emplace_back();
            (tensors[found->second].*indices).push_back(i);
            largest_ = std::max(largest_, parameter.shape.elements());
        }
    };
    add(store, &Tensors::experts);
    add(store.copies(), &Tensors::places);
}

std::vector<CopiedExperts::Copy> CopiedExperts::copies_of(const Mesh& mesh, int layer) {
    const ExpertCopies& copies = mesh.copies(layer);
    const i64 places = mesh.copy_places(), each = mesh.local_experts();
    std::vector<Copy> all;
    for (i64 place = 0; place < std::ssize(copies.places); ++place) {
        const i32 expert = copies.places[static_cast<std::size_t>(place)].expert;
        if (expert < 0) continue;
        const i64 position = mesh.placement(layer).position_of[static_cast<std::size_t>(expert)];
        all.push_back({static_cast<int>(place / places), static_cast<int>(position / each),
                       static_cast<std::size_t>(place % places), static_cast<std::size_t>(position % each)});
    }
    return all;
}

void CopiedExperts::refresh(StepContext& context) {
    Communicator& group = context.mesh.same_slice();
    const std::span<const Parameter> experts = std::as_const(store_).parameters();
    const std::span<const Parameter> places = std::as_const(store_.copies()).parameters();
    context.exchange.wait(context.compute.record());
    for (const auto& [layer, tensors] : layers_) {
        for (const Copy& copy : copies_of(context.mesh, layer)) {
            for (const Tensors& one : tensors) {
                if (copy.owner == group.rank())
                    group.send(context.exchange, experts[one.experts[copy.expert]].value, copy.holder,
                               {kCopiedExpertsPhase, layer});
                if (copy.holder == group.rank())
                    group.recv(context.exchange, places[one.places[copy.place]].value, copy.owner,
                               {kCopiedExpertsPhase, layer});
            }
        }
    }
    context.compute.wait(context.exchange.record());
    store_.copies().pack(context.compute);
}

void CopiedExperts::bring_gradients_home(StepContext& context, int layer) {
    Communicator& group = context.mesh.same_slice();
    const auto sum_of = [](ParameterStore& store, std::size_t index) {
        const i64 elements = std::as_const(store).parameters()[index].shape.elements();
        return store.sums(Placement::expert).flat(store.offset_of(index), elements);
    };
    Tensor arriving = context.backend.allocate({largest_}, DType::f64);
    for (const Copy& copy : copies_of(context.mesh, layer)) {
        for (const Tensors& one : layers_.at(layer)) {
            context.exchange.wait(context.compute.record());
            if (copy.holder == group.rank())
                group.send(context.exchange, sum_of(store_.copies(), one.places[copy.place]), copy.owner,
                           {kCopiedExpertsPhase, layer});
            if (copy.owner != group.rank()) continue;
            const TensorView sum = sum_of(store_, one.experts[copy.expert]);
            const TensorView arrived = arriving.view().flat(0, sum.elements());
            group.recv(context.exchange, arrived, copy.holder, {kCopiedExpertsPhase, layer});
            context.compute.wait(context.exchange.record());
            context.backend.add(context.compute, arrived, sum);
        }
    }
}

}  // namespace moesaic
