#include "comm/expert_moves.h"

namespace moesaic {

namespace {

/// One tensor of every expert of a layer, e.g. the gate of layer 3.
struct ExpertTensor {
    int layer = -1;
    i64 elements = 0;
    std::vector<i64> offset;  ///< [e] in the arena, by local index
};

/// In the order of the arena, which is the same on every rank.
std::vector<ExpertTensor> tensors_in(const Mesh& mesh, const ParameterStore& store, ArenaRange range) {
    std::vector<ExpertTensor> tensors;
    std::map<std::string, std::size_t> index;  // by the name that expert 0 has
    for (std::size_t i = 0; i < store.parameters().size(); ++i) {
        const Parameter& parameter = store.parameters()[i];
        const i64 offset = store.offset_of(i);
        if (parameter.placement != Placement::expert || offset < range.begin || offset >= range.end) continue;
        const auto [known, first] = index.try_emplace(parameter.name_for_expert(0), tensors.size());
        if (first) tensors.push_back({parameter.layer, parameter.shape.elements(), {}});
        tensors[known->second].offset.push_back(offset);
    }
    for (const ExpertTensor& tensor : tensors) {
        MOESAIC_ASSERT(std::ssize(tensor.offset) == mesh.local_experts(), "{} of {} experts in a range",
                       tensor.offset.size(), mesh.local_experts());
    }
    return tensors;
}

/// Calls visit(local index there, expert's present position) for all that come to `rank` from elsewhere.
template <class Visit>
void for_each_arrival(const Mesh& mesh, int layer, const ExpertPlacement& next, int rank, Visit visit) {
    const i64 each = mesh.local_experts();
    for (i64 local = 0; local < each; ++local) {
        const i64 position = rank * each + local;
        const i32 expert = next.expert_at[static_cast<std::size_t>(position)];
        const i64 before = mesh.placement(layer).position_of[static_cast<std::size_t>(expert)];
        if (before != position) visit(local, before);
    }
}

}  // namespace

ExpertMoves expert_moves(const Mesh& mesh, const ParameterStore& store, const NewPlacements& next,
                         ArenaRange range) {
    const std::vector<ExpertTensor> tensors = tensors_in(mesh, store, range);
    const int ranks = mesh.expert_parallel(), self = mesh.expert_rank();
    const i64 each = mesh.local_experts();
    ExpertMoves moves;
    moves.send.assign(static_cast<std::size_t>(ranks), 0);
    moves.recv.assign(static_cast<std::size_t>(ranks), 0);
    for (int peer = 0; peer < ranks; ++peer) {
        for (const ExpertTensor& tensor : tensors) {
            const auto changed = next.find(tensor.layer);
            if (changed == next.end()) continue;
            const auto piece = [&](i64 local) {
                const i64 begin = tensor.offset[static_cast<std::size_t>(local)];
                return ArenaRange{begin, begin + tensor.elements};
            };
            for_each_arrival(mesh, tensor.layer, changed->second, peer, [&](i64, i64 before) {
                ++moves.tensors;
                if (before / each != self) return;
                moves.leaving.push_back(piece(before % each));
                moves.send[static_cast<std::size_t>(peer)] += tensor.elements;
            });
            for_each_arrival(mesh, tensor.layer, changed->second, self, [&](i64 local, i64 before) {
                if (before / each != peer) return;
                moves.arriving.push_back(piece(local));
                moves.recv[static_cast<std::size_t>(peer)] += tensor.elements;
            });
        }
    }
    return moves;
}

void rename_experts(const Mesh& mesh, const NewPlacements& next, ParameterStore& store) {
    const i64 first = i64{mesh.expert_rank()} * mesh.local_experts();
    for (Parameter& parameter : store.parameters()) {
        const auto changed = next.find(parameter.layer);
        if (parameter.placement != Placement::expert || changed == next.end()) continue;
        const i32 position =
            mesh.placement(parameter.layer).position_of[static_cast<std::size_t>(parameter.expert)];
        MOESAIC_ASSERT(position >= first && position < first + mesh.local_experts(),
                       "{} is not at home at position {}", parameter.name, position);
        const i32 expert = changed->second.expert_at[static_cast<std::size_t>(position)];
        parameter.name = parameter.name_for_expert(expert);
        parameter.expert = expert;
    }
}

}  // namespace moesaic
