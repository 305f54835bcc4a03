#include "comm/dispatch_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "comm/accounting_communicator.h"
#include "comm/dispatch_layout.h"
#include "comm/host_values.h"

namespace moesaic {

namespace {

/// What the one host synchronisation brings: this rank's choices in send order, and everybody's counts.
struct HostView {
    std::vector<i32> order;  ///< [T*K] choice (t*K + k) of each slot; the first `slots` are meant
    std::vector<i64> load;   ///< [W,E] by expert; then by rank and local expert
};

i64 sum(const std::vector<i64>& counts) {
    return std::reduce(counts.begin(), counts.end());
}

/// `choices` over experts, each as many or one more, but no more than `most`.
void spread_evenly(i64 choices, i64 most, std::span<i64> load) {
    const i64 experts = std::ssize(load);
    for (i64 i = 0; i < experts; ++i)
        load[static_cast<std::size_t>(i)] =
            std::min(choices / experts + (i < choices % experts ? 1 : 0), most);
}

/// In a dry run nobody has chosen: all ranks then send alike, as AssumedRouting says.
void assume_routing(const Mesh& mesh, const Routing& routing, HostView& host) {
    std::iota(host.order.begin(), host.order.end(), 0);
    const auto* dry = dynamic_cast<const AccountingCommunicator*>(&mesh.experts());
    const bool hot = dry != nullptr && dry->assumed_routing() == AssumedRouting::hot_rank;
    const auto experts = static_cast<std::size_t>(mesh.total_experts());
    const auto of_first = static_cast<std::size_t>(mesh.local_experts());
    const i64 choices = routing.slots(), to_one = std::min<i64>(routing.expert.cols(), mesh.local_experts());
    const i64 to_first = std::min(choices, routing.expert.rows() * to_one);
    for (std::size_t source = 0; source < host.load.size(); source += experts) {
        const std::span<i64> load(host.load.data() + source, experts);
        if (hot && of_first < experts) {
            spread_evenly(to_first, routing.most_rows, load.first(of_first));
            spread_evenly(choices - to_first, routing.most_rows, load.subspan(of_first));
        } else {
            spread_evenly(choices, routing.most_rows, load);
        }
    }
}

/// What an expert-parallel rank has at one of its places: an expert (place -1), a copy, or nothing.
struct HeldExpert {
    i32 expert = -1;
    i64 place = -1;
};

HeldExpert held_expert(const ExpertPlacement& placement, const ExpertCopies& copies, i64 experts, i64 places,
                       i64 rank, i64 local) {
    if (local < experts) return {placement.expert_at[static_cast<std::size_t>(rank * experts + local)], -1};
    if (copies.places.empty()) return {};
    const i64 place = rank * (places - experts) + local - experts;
    return {copies.places[static_cast<std::size_t>(place)].expert, place};
}

/// From the order of experts to that of the ranks that hold them: the only place where rows meet placement,
/// copies and slices. Within an expert nothing moves, so that it sees its rows in the same order wherever it
/// lies.
void order_by_holder(const Mesh& mesh, int layer, HostView& host) {
    const ExpertPlacement& placement = mesh.placement(layer);
    const ExpertCopies& copies = mesh.copies(layer);
    const i64 slices = mesh.expert_tensor(), each = mesh.local_experts(), places = mesh.local_places();
    if (slices == 1 && places == each && std::ranges::is_sorted(placement.expert_at)) return;
    const i64 experts = mesh.total_experts(), sources = mesh.experts().size();
    const bool any_copies = copies.any();
    const HostView by_expert = std::move(host);
    const auto rows_of = [&](i64 source, i32 expert) {
        return by_expert.load[static_cast<std::size_t>(source * experts + expert)];
    };
    std::vector<i64> first(static_cast<std::size_t>(experts), 0);
    for (i32 expert = 0; expert + 1 < experts; ++expert)
        first[static_cast<std::size_t>(expert) + 1] =
            first[static_cast<std::size_t>(expert)] + rows_of(mesh.experts().rank(), expert);
    host.order.clear();
    host.load.assign(static_cast<std::size_t>(sources * sources * places), 0);
    for (i64 holder = 0; holder < sources; ++holder) {
        for (i64 local = 0; local < places; ++local) {
            const HeldExpert held = held_expert(placement, copies, each, places, holder / slices, local);
            if (held.expert < 0) continue;
            const PlaceParts parts =
                any_copies ? parts_of_place(copies, held.expert, held.place) : PlaceParts{0, 1, 1};
            const auto part_of = [&](i64 source) {
                return rows_of_parts(parts, rows_of(source, held.expert));
            };
            for (i64 source = 0; source < sources; ++source)
                host.load[static_cast<std::size_t>((source * sources + holder) * places + local)] =
                    part_of(source).count;
            const RowRange part = part_of(mesh.experts().rank());
            const auto choice =
                by_expert.order.begin() + first[static_cast<std::size_t>(held.expert)] + part.first;
            const auto as_slice = [&](i32 one) { return static_cast<i32>(one * slices + holder % slices); };
            std::transform(choice, choice + part.count, std::back_inserter(host.order), as_slice);
        }
    }
    host.order.resize(by_expert.order.size() * static_cast<std::size_t>(slices), 0);  // dropped ones
}

/// Collective over mesh.experts(). Sorts the choices by the experts' holders and all-gathers the counts: this
/// is the order destination, local expert, token.
HostView sort_and_gather(StepContext& context, const Routing& routing, int layer) {
    Backend& backend = context.backend;
    const Communicator& group = context.mesh.experts();
    const i64 choices = routing.expert.elements(), experts = context.mesh.total_experts();
    Tensor order = backend.allocate({choices}, DType::int32);
    Tensor counts = backend.allocate({experts}, DType::int64);
    Tensor load = backend.allocate({group.size(), experts}, DType::int64);
    const ConstTensorView key = routing.expert.view().reshaped({choices});
    backend.group_by_key(context.compute, {.key = key, .order = order, .counts = counts});
    if (group.size() == 1) {
        backend.copy(context.compute, counts, load);
    } else {
        context.exchange.wait(context.compute.record());
        context.mesh.experts().all_gather(context.exchange, counts.view().reshaped({1, experts}), load,
                                          {"counts per expert", layer});
        context.compute.wait(context.exchange.record());
    }
    HostView host;
    host.order.resize(static_cast<std::size_t>(choices));
    host.load.resize(static_cast<std::size_t>(load.elements()));
    load_values(context, order, host.order);
    load_values(context, load, host.load);
    context.compute.synchronize();
    if (!context.backend.computes()) assume_routing(context.mesh, routing, host);
    order_by_holder(context.mesh, layer, host);
    return host;
}

/// The source tokens of a round's rows as they are sent: by destination, then in slot order.
std::vector<i32> tokens_to_send(const ChunkLayout& layout, const std::vector<i32>& order, i64 choices,
                                std::vector<int> destinations) {
    if (destinations.empty()) {
        destinations.resize(layout.send_rows.size());
        std::iota(destinations.begin(), destinations.end(), 0);
    }
    std::vector<i32> tokens;
    tokens.reserve(static_cast<std::size_t>(sum(layout.send_rows)));
    for (const int destination : destinations) {
        const auto peer = static_cast<std::size_t>(destination);
        for (i64 row = 0; row < layout.send_rows[peer]; ++row) {
            const i32 choice = order[static_cast<std::size_t>(layout.first_slot[peer] + row)];
            tokens.push_back(choice / static_cast<i32>(choices));
        }
    }
    return tokens;
}

DispatchChunk make_chunk(StepContext& context, ChunkLayout&& layout, const HostView& host,
                         const DispatchPlan& plan, i64 capacity_rows, const WireOrder& wire) {
    DispatchChunk chunk;
    chunk.token_of_send = context.backend.allocate({plan.tokens * plan.choices}, DType::int32);
    chunk.grouped_from_arrival = context.backend.allocate({capacity_rows}, DType::int32);
    chunk.arrival_from_grouped = context.backend.allocate({capacity_rows}, DType::int32);
    store_values(context, tokens_to_send(layout, host.order, plan.choices, wire.destinations),
                 chunk.token_of_send);
    store_values(context, layout.grouped_from_arrival, chunk.grouped_from_arrival);
    store_values(context, layout.arrival_from_grouped, chunk.arrival_from_grouped);
    chunk.first_slot = std::move(layout.first_slot);
    chunk.send_rows = std::move(layout.send_rows);
    chunk.recv_rows = std::move(layout.recv_rows);
    chunk.rows_per_expert = std::move(layout.rows_per_expert);
    chunk.rows_per_source = std::move(layout.rows_per_source);
    MOESAIC_ASSERT(chunk.received() <= capacity_rows, "{} rows for a capacity of {}", chunk.received(),
                   capacity_rows);
    return chunk;
}

Tensor invert_order(StepContext& context, const HostView& host, const DispatchPlan& plan) {
    std::vector<i32> slot_of_choice(host.order.size(), -1);
    for (i64 slot = 0; slot < plan.slots; ++slot) {
        slot_of_choice[static_cast<std::size_t>(host.order[static_cast<std::size_t>(slot)])] =
            static_cast<i32>(slot);
    }
    Tensor tensor = context.backend.allocate({plan.tokens, plan.choices}, DType::int32);
    store_values(context, slot_of_choice, tensor);
    return tensor;
}

}  // namespace

i64 DispatchChunk::sent() const {
    return sum(send_rows);
}

i64 DispatchChunk::received() const {
    return sum(recv_rows);
}

i64 receive_capacity(i64 tokens, i64 choices, double receive_budget) {
    const double rows = std::ceil(receive_budget * static_cast<double>(tokens * choices));
    return std::max(i64{1}, static_cast<i64>(rows));
}

LoadTable load_table(const DispatchPlan& plan, const Mesh& mesh) {
    return {plan.load, mesh.experts().size(), mesh.local_places(), plan.rule.own_rows_first};
}

DispatchPlan make_plan(StepContext& context, const Routing& routing, const RoundRule& rule, int layer,
                       const WireOrder& order) {
    const Mesh& mesh = context.mesh;
    DispatchPlan plan;
    plan.layer = layer;
    plan.rule = rule;
    plan.tokens = routing.expert.rows();
    plan.slices = mesh.expert_tensor();
    plan.choices = routing.expert.cols() * plan.slices;
    plan.most_slots = routing.slots() * plan.slices;
    HostView host = sort_and_gather(context, routing, layer);
    plan.load = std::move(host.load);
    const LoadTable table = load_table(plan, mesh);
    const i64 rank = mesh.experts().rank();
    plan.slots = table.sent_by(rank);
    plan.dropped = plan.tokens * plan.choices - plan.slots;
    MOESAIC_ASSERT(plan.dropped >= 0, "{} rows from {} choices", plan.slots, plan.tokens * plan.choices);
    plan.slot_of_choice = invert_order(context, host, plan);
    const i64 rounds = rounds_needed(table, rule.capacity_rows);
    for (i64 round = 0; round < rounds; ++round) {
        ChunkLayout layout = chunk_layout(table, rank, round, rule.capacity_rows, order.sources);
        plan.chunks.push_back(make_chunk(context, std::move(layout), host, plan, rule.capacity_rows, order));
    }
    plan.choice_of_slot.assign(host.order.begin(), host.order.begin() + plan.slots);
    return plan;
}

}  // namespace moesaic
