#include "comm/mesh.h"

#include <array>
#include <numeric>
#include <vector>

#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

/// Divisors of both, e.g. "1, 2, 4".
std::string common_divisors(int a, int b) {
    std::string text;
    const int both = std::gcd(a, b);
    for (int divisor = 1; divisor <= both; ++divisor) {
        if (both % divisor == 0) text += fmt::format("{}{}", text.empty() ? "" : ", ", divisor);
    }
    return text;
}

template <class Groups, class Value>
Value sum_over(const Groups& groups, Value (Communicator::*value)() const) {
    Value sum{};
    for (const Communicator* group : groups) sum += (group->*value)();
    return sum;
}

/// Collective over `group`. Every verb once, with values that tell where they come from.
void exercise(Communicator& group) {
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("start-up");
    const auto size = static_cast<std::size_t>(group.size());
    const std::vector<i64> one_each(size, 1);
    std::vector<i64> sent(size), received(size, -1), gathered(size, -1);
    const i64 mine = group.rank();
    for (std::size_t peer = 0; peer < size; ++peer) sent[peer] = mine * 1000003 + static_cast<i64>(peer);
    const TensorView all = view_of(gathered.data(), {group.size()});
    group.all_to_all_rows(*stream, view_of(sent.data(), {group.size()}), one_each,
                          view_of(received.data(), {group.size()}), one_each, {"start-up check"});
    group.all_gather(*stream, view_of(&mine, {1}), all, {"start-up check"});
    for (std::size_t peer = 0; peer < size; ++peer) {
        const auto source = static_cast<i64>(peer);
        if (received[peer] == source * 1000003 + group.rank() && gathered[peer] == source) continue;
        throw Error(fmt::format("{}: communicator '{}' delivered wrong values from its rank {} at start-up",
                                Communicator::speaker(), group.name(), peer));
    }
}

/// Collective over `world`. By world rank; simulated nodes are blocks of ranks.
std::vector<int> nodes_of_world(Communicator& world, int ranks_per_node) {
    std::vector<int> nodes(static_cast<std::size_t>(world.size()));
    const int each = ranks_per_node > 0 ? ranks_per_node : world.topology().ranks_per_node;
    if (ranks_per_node > 0 || !world.connected()) {
        for (std::size_t rank = 0; rank < nodes.size(); ++rank) nodes[rank] = static_cast<int>(rank) / each;
        return nodes;
    }
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("start-up");
    const i32 mine = world.topology().node;
    world.all_gather(*stream, view_of(&mine, {1}), view_of(nodes.data(), {world.size()}), {"nodes"});
    return nodes;
}

}  // namespace

int choose_expert_parallel(int experts, int world, int ranks_per_node, int expert_tensor) {
    const auto shared_out = [&](int ranks) { return std::max(1, ranks / expert_tensor); };
    return experts > 0 ? std::gcd(experts, std::gcd(shared_out(world), shared_out(ranks_per_node))) : 1;
}

void check_mesh_shape(const MeshShape& shape, int experts, int world) {
    const std::array reserved{std::pair{"tensor", shape.tensor}, std::pair{"pipeline", shape.pipeline},
                              std::pair{"context", shape.context}};
    for (const auto& [name, extent] : reserved) {
        if (extent != 1)
            throw UserError(fmt::format("parallel.{}: {} is not in this version; use 1", name, extent));
    }
    if (shape.expert_tensor < 1 || world % shape.expert_tensor != 0) {
        throw UserError(fmt::format(
            "parallel.expert_tensor: {} does not divide {} ranks; use a divisor, or a multiple of "
            "{} ranks",
            shape.expert_tensor, world, std::max(1, shape.expert_tensor)));
    }
    if (shape.expert_tensor > 1 && experts <= 0) {
        throw UserError(fmt::format("parallel.expert_tensor: {} for a model without experts; use 1",
                                    shape.expert_tensor));
    }
    if (shape.expert == 1) return;  // always fits, also for models without experts
    if (experts <= 0) {
        throw UserError(
            fmt::format("parallel.expert: {} for a model without experts; use 1 or auto", shape.expert));
    }
    const int wholes = world / shape.expert_tensor;  // ranks, or groups of them that hold whole experts
    if (shape.expert < 1 || wholes % shape.expert != 0 || experts % shape.expert != 0) {
        const std::string ranks =
            shape.expert_tensor == 1
                ? fmt::format("{} ranks", world)
                : fmt::format("{} ranks / {} (parallel.expert_tensor)", world, shape.expert_tensor);
        throw UserError(
            fmt::format("parallel.expert: {} does not divide both {} and {} experts; use one of {}, or auto",
                        shape.expert, ranks, experts, common_divisors(wholes, experts)));
    }
}

Mesh::Mesh(Communicator& world, const MeshShape& shape, int experts)
    : Mesh(world, shape, experts, nodes_of_world(world, shape.ranks_per_node)) {}

Mesh::Mesh(Communicator& world, const MeshShape& shape, int experts, const std::vector<int>& node_of_rank)
    : world_(world), shape_(shape), total_experts_(experts), contiguous_(contiguous_placement(experts)) {
    check_mesh_shape(shape, experts, world.size());
    const int group = shape.expert * shape.expert_tensor;
    const int replica_index = world.rank() / group, rank_in_group = world.rank() % group;
    experts_ = world.split(replica_index, rank_in_group, "experts");
    replicas_ = world.split(rank_in_group, replica_index, "replicas");
    std::vector<int> expert_nodes, replica_nodes;
    for (int rank = 0; rank < world.size(); ++rank) {
        const int node = node_of_rank[static_cast<std::size_t>(rank)];
        if (rank / group == replica_index) expert_nodes.push_back(node);
        if (rank % group == rank_in_group) replica_nodes.push_back(node);
    }
    grid_ = make_node_grid(expert_nodes);
    if (shape.expert_tensor > 1) split_by_slice(expert_nodes);
    if (grid_.nodes > 1) split_by_node();
    world.set_peer_nodes(node_of_rank);
    experts_->set_peer_nodes(expert_nodes);
    replicas_->set_peer_nodes(replica_nodes);
    for (Communicator* one : groups()) {
        if (one->connected()) exercise(*one);
    }
}

/// Collective over mesh.experts(), whose ranks lie on these nodes.
void Mesh::split_by_slice(const std::vector<int>& expert_nodes) {
    same_slice_ = experts_->split(slice(), expert_rank(), "same slice");
    slices_ = experts_->split(expert_rank(), slice(), "slices");
    std::vector<int> same_nodes, slice_nodes;
    for (int rank = 0; rank < experts_->size(); ++rank) {
        const int node = expert_nodes[static_cast<std::size_t>(rank)];
        if (rank % shape_.expert_tensor == slice()) same_nodes.push_back(node);
        if (rank / shape_.expert_tensor == expert_rank()) slice_nodes.push_back(node);
    }
    same_slice_->set_peer_nodes(same_nodes);
    slices_->set_peer_nodes(slice_nodes);
}

Communicator& Mesh::slices() const {
    MOESAIC_ASSERT(slices_, "slices of whole experts");
    return *slices_;
}

/// Collective over mesh.experts().
void Mesh::split_by_node() {
    const auto self = static_cast<std::size_t>(experts_->rank());
    const int node = grid_.node_of[self], local = grid_.local_of[self];
    node_ = experts_->split(node, local, "node");
    if (!grid_.even()) return;
    across_nodes_ = experts_->split(local, node, "across nodes");
    std::vector<int> all_nodes(static_cast<std::size_t>(grid_.nodes));
    std::iota(all_nodes.begin(), all_nodes.end(), 0);
    across_nodes_->set_peer_nodes(all_nodes);
}

Communicator& Mesh::across_nodes() const {
    MOESAIC_ASSERT(across_nodes_, "ranks across {}", grid_.text());
    return *across_nodes_;
}

std::vector<Communicator*> Mesh::groups() const {
    std::vector<Communicator*> all{&world_, experts_.get(), replicas_.get()};
    if (same_slice_) all.push_back(same_slice_.get());
    if (slices_) all.push_back(slices_.get());
    if (node_) all.push_back(node_.get());
    if (across_nodes_) all.push_back(across_nodes_.get());
    return all;
}

i64 Mesh::reserved_bytes() const {
    return sum_over(groups(), &Communicator::reserved_bytes);
}

std::vector<const Communicator*> Mesh::exchange_groups() const {
    std::vector<const Communicator*> of_rows{experts_.get()};
    if (node_) of_rows.push_back(node_.get());
    if (across_nodes_) of_rows.push_back(across_nodes_.get());
    return of_rows;
}

double Mesh::exchange_seconds() const {
    return sum_over(exchange_groups(), &Communicator::seconds);
}

double Mesh::exchange_waiting_seconds() const {
    return sum_over(exchange_groups(), &Communicator::waiting_seconds);
}

double Mesh::collective_seconds() const {
    return sum_over(groups(), &Communicator::seconds);
}

i64 Mesh::shared_bytes() const {
    return sum_over(groups(), &Communicator::shared_bytes);
}

const ExpertPlacement& Mesh::placement(int layer) const {
    const auto found = placements_.find(layer);
    return found == placements_.end() ? contiguous_ : found->second;
}

const ExpertCopies& Mesh::copies(int layer) const {
    static const ExpertCopies kNone;
    const auto found = copies_.find(layer);
    return found == copies_.end() ? kNone : found->second;
}

void Mesh::place_experts(int layer, ExpertPlacement placement) {
    MOESAIC_ASSERT(std::ssize(placement.expert_at) == total_experts_, "places of {} experts for {}",
                   placement.expert_at.size(), total_experts_);
    placements_[layer] = std::move(placement);
}

std::span<const i32> Mesh::experts_of(int layer, int expert_rank) const {
    const auto each = static_cast<std::size_t>(local_experts());
    return std::span(placement(layer).expert_at).subspan(static_cast<std::size_t>(expert_rank) * each, each);
}

i32 Mesh::counterpart(const Parameter& parameter, int expert_rank) const {
    const i32 position = placement(parameter.layer).position_of[static_cast<std::size_t>(parameter.expert)];
    return experts_of(parameter.layer, expert_rank)[static_cast<std::size_t>(position % local_experts())];
}

int Mesh::expert_owner(int layer, int expert) const {
    MOESAIC_ASSERT(expert >= 0 && expert < total_experts_, "expert {} of {}", expert, total_experts_);
    return placement(layer).position_of[static_cast<std::size_t>(expert)] / local_experts();
}

}  // namespace moesaic
