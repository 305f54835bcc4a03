#include "comm/exchange/node_planner.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "comm/array_index.h"
#include "comm/host_values.h"

namespace moesaic {

namespace {

i64 sum(const std::vector<i64>& counts) {
    return std::reduce(counts.begin(), counts.end());
}

/// Token and weight of rows, as a source tells its proxies: words of 32 bits, the token and then the weight.
template <class Real>
struct Places {
    static constexpr i64 kWords = 1 + static_cast<i64>(sizeof(Real) / sizeof(i32));
    std::vector<i32> words;

    void add(i32 token, Real weight) {
        words.resize(words.size() + at(kWords));
        words[words.size() - at(kWords)] = token;
        std::memcpy(words.data() + words.size() - at(kWords) + 1, &weight, sizeof weight);
    }
    [[nodiscard]] i32 token(i64 row) const { return words[at(row * kWords)]; }
    [[nodiscard]] Real weight(i64 row) const {
        Real value{};
        std::memcpy(&value, words.data() + at(row * kWords) + 1, sizeof value);
        return value;
    }
};

/// The rows of one plan, in rounds. `Real` is the type of weights.
template <class Real>
class NodePlanner {
  public:
    NodePlanner(StepContext& context, const ExchangeSizes& sizes, NodePlanOptions options, DispatchPlan& plan)
        : context_(context),
          grid_(context.mesh.grid()),
          sizes_(node_sizes(context.mesh, sizes)),
          capacity_rows_(sizes.capacity_rows),
          options_(options),
          plan_(plan),
          table_(load_table(plan, context.mesh)),
          rank_(context.mesh.experts().rank()),
          node_(grid_.node_of[at(rank_)]),
          local_(grid_.local_of[at(rank_)]) {}

    /// Collective over mesh.experts().
    void plan(ConstTensorView weight) {
        if (options_.tokens) exchange_places(weight);
        i64 proxied = 0;
        for (i64 round = 0; round < std::ssize(plan_.chunks); ++round) {
            const NodeLayout layout = node_layout(table_, grid_, rank_, round, capacity_rows_);
            NodeChunk chunk = chunk_of(layout);
            if (options_.tokens) plan_arrivals(layout, chunk);
            if (options_.tokens) plan_departures(plan_.chunks[at(round)], chunk);
            plan_.nodes.first_proxied.push_back(proxied);
            proxied += chunk.proxied();
            MOESAIC_ASSERT(chunk.proxied() <= sizes_.proxied && proxied <= sizes_.proxied_in_all,
                           "{} rows at once and {} in all at a proxy made for {} and {}", chunk.proxied(),
                           proxied, sizes_.proxied, sizes_.proxied_in_all);
            plan_.nodes.chunks.push_back(std::move(chunk));
        }
    }

  private:
    template <Element T>
    [[nodiscard]] Tensor tensor_of(const std::vector<T>& values, Shape shape) {
        Tensor tensor = context_.backend.allocate(shape, dtype_of<T>());
        store_values(context_, values, tensor);
        return tensor;
    }
    [[nodiscard]] NodeChunk chunk_of(const NodeLayout& layout) {
        NodeChunk chunk;
        chunk.slots_to_node = layout.slots_to_node;
        chunk.slots_from_node = layout.slots_from_node;
        chunk.rows_to_local = layout.rows_to_local;
        chunk.rows_from_proxy = layout.rows_from_proxy;
        if (!options_.tokens)
            chunk.leaving_from_arrival = tensor_of(layout.leaving_from_arrival, {sizes_.proxied});
        if (!options_.sums)
            chunk.arrival_from_leaving = tensor_of(layout.arrival_from_leaving, {sizes_.proxied});
        return chunk;
    }
    void exchange_places(ConstTensorView weight);
    [[nodiscard]] Places<Real> places_of_slots(ConstTensorView weight) const;
    void plan_arrivals(const NodeLayout& layout, NodeChunk& chunk);
    void plan_departures(const DispatchChunk& round, NodeChunk& chunk);

    StepContext& context_;
    const NodeGrid& grid_;
    NodeSizes sizes_;
    i64 capacity_rows_;
    NodePlanOptions options_;
    DispatchPlan& plan_;
    LoadTable table_;
    i64 rank_;
    int node_, local_;
    Places<Real> arrived_;         // of all rounds, by partner's node, local number, slot
    std::vector<i64> next_place_;  // [N,L] the first in arrived_ of those that earlier rounds have not taken
};

/// By node, local number and slot.
template <class Real>
Places<Real> NodePlanner<Real>::places_of_slots(ConstTensorView weight) const {
    std::vector<Real> weights(at(weight.elements()));
    load_values(context_, weight, weights);
    context_.compute.synchronize();
    std::vector<i64> first_slot(at(table_.ranks) + 1, 0);
    for (i64 receiver = 0; receiver < table_.ranks; ++receiver)
        first_slot[at(receiver) + 1] = first_slot[at(receiver)] + table_.rows_to(rank_, receiver);
    Places<Real> places;
    for (const int receiver : grid_.by_node()) {
        for (i64 slot = first_slot[at(receiver)]; slot < first_slot[at(receiver) + 1]; ++slot) {
            const i32 choice = plan_.choice_of_slot[at(slot)];
            places.add(choice / static_cast<i32>(plan_.choices), weights[at(choice / plan_.slices)]);
        }
    }
    return places;
}

/// Collective over mesh.across_nodes().
template <class Real>
void NodePlanner<Real>::exchange_places(ConstTensorView weight) {
    const Places<Real> mine = places_of_slots(weight);
    std::vector<i64> send(at(grid_.nodes), 0), recv(at(grid_.nodes), 0);
    for (int other = 0; other < grid_.nodes; ++other) {
        for (int local = 0; local < grid_.ranks_per_node(); ++local) {
            next_place_.push_back(sum(recv));
            send[at(other)] += table_.rows_to(rank_, grid_.rank_at(other, local));
            recv[at(other)] += table_.rows_to(grid_.rank_at(other, local_), grid_.rank_at(node_, local));
        }
    }
    constexpr i64 kWords = Places<Real>::kWords;
    const Tensor sending = tensor_of(mine.words, {plan_.tokens * plan_.choices, kWords});
    Tensor receiving = context_.backend.allocate({sizes_.proxied_in_all, kWords}, DType::int32);
    const TensorView received = receiving.slice_rows(0, sum(recv));
    context_.exchange.wait(context_.compute.record());
    context_.mesh.across_nodes().all_to_all_rows(context_.exchange, sending.slice_rows(0, sum(send)), send,
                                                 received, recv, {kPlacesPhase, plan_.layer});
    context_.compute.wait(context_.exchange.record());
    arrived_.words.resize(at(received.elements()));
    load_values(context_, received, arrived_.words);
    context_.compute.synchronize();
    if (context_.backend.computes()) return;
    for (i64 row = 0, from = 0; from < grid_.nodes; ++from) {  // a dry run: any tokens that are possible
        for (i64 i = 0; i < recv[at(from)]; ++i)
            arrived_.words[at(row++ * kWords)] = static_cast<i32>(i / sizes_.choices_on_node);
    }
}

/// Which of the rows for this node are of one token of a partner.
template <class Real>
void NodePlanner<Real>::plan_arrivals(const NodeLayout& layout, NodeChunk& chunk) {
    const i64 locals = grid_.ranks_per_node(), most = sizes_.choices_on_node;
    std::vector<i32> arrived_of_slot, leaving_of_token;
    std::vector<Real> weight_of_token;
    i64 tokens = 0;
    for (i64 node = 0; node < grid_.nodes; ++node) {
        std::vector<i32> token;
        std::vector<Real> weight;
        for (i64 local = 0; local < locals; ++local) {
            i64& next = next_place_[at(node * locals + local)];
            for (i64 row = 0; row < layout.pair_rows[at(node * locals + local)]; ++row, ++next) {
                token.push_back(arrived_.token(next));
                weight.push_back(arrived_.weight(next));
            }
        }
        const DistinctTokens rows = distinct_tokens(token);
        const i64 count = std::ssize(rows.tokens);
        leaving_of_token.resize(at((tokens + count) * most), -1);
        weight_of_token.resize(leaving_of_token.size());
        for (std::size_t row = 0; row < token.size(); ++row) {
            const i64 arrived = tokens + rows.of_row[row];
            const std::size_t place = at(arrived * most + rows.ordinal[row]);
            leaving_of_token[place] = layout.arrival_from_leaving[arrived_of_slot.size()];
            weight_of_token[place] = weight[row];
            arrived_of_slot.push_back(static_cast<i32>(arrived));
        }
        chunk.tokens_from_node.push_back(count);
        tokens += count;
    }
    std::vector<i32> token_of_leaving;
    token_of_leaving.reserve(layout.leaving_from_arrival.size());
    for (const i32 slot : layout.leaving_from_arrival) token_of_leaving.push_back(arrived_of_slot[at(slot)]);
    chunk.token_of_leaving = tensor_of(token_of_leaving, {sizes_.proxied});
    chunk.leaving_of_token = tensor_of(leaving_of_token, {sizes_.tokens_arrived, most});
    chunk.weight_of_token = tensor_of(weight_of_token, {sizes_.tokens_arrived, most});
}

/// Which rows of this rank are of one token for a node: the counterpart of plan_arrivals on its proxies.
template <class Real>
void NodePlanner<Real>::plan_departures(const DispatchChunk& round, NodeChunk& chunk) {
    const i64 choices = plan_.choices, most = sizes_.choices_on_node;
    std::vector<i32> token_of_departure;
    std::vector<i32> departure_of_token(at(plan_.tokens * grid_.nodes), -1);
    std::vector<i32> weight_place(at(plan_.tokens * choices), -1);
    for (int node = 0; node < grid_.nodes; ++node) {
        std::vector<i32> choice, token;
        for (int local = 0; local < grid_.ranks_per_node(); ++local) {
            const std::size_t receiver = at(grid_.rank_at(node, local));
            for (i64 row = 0; row < round.send_rows[receiver]; ++row) {
                choice.push_back(plan_.choice_of_slot[at(round.first_slot[receiver] + row)]);
                token.push_back(choice.back() / static_cast<i32>(choices));
            }
        }
        const DistinctTokens rows = distinct_tokens(token);
        const i64 first = std::ssize(token_of_departure);
        for (std::size_t row = 0; row < token.size(); ++row) {
            const i64 departure = first + rows.of_row[row];
            departure_of_token[at(token[row] * grid_.nodes + node)] = static_cast<i32>(departure);
            weight_place[at(choice[row])] = static_cast<i32>(departure * most + rows.ordinal[row]);
        }
        token_of_departure.insert(token_of_departure.end(), rows.tokens.begin(), rows.tokens.end());
        chunk.tokens_to_node.push_back(std::ssize(rows.tokens));
    }
    const i64 departures = plan_.tokens * std::min<i64>(choices, grid_.nodes);
    chunk.token_of_departure = tensor_of(token_of_departure, {departures});
    if (!options_.sums) return;
    chunk.departure_of_token = tensor_of(departure_of_token, {plan_.tokens, grid_.nodes});
    chunk.weight_place = tensor_of(weight_place, {plan_.tokens * choices});
}

}  // namespace

i64 NodeChunk::proxied() const {
    return sum(rows_to_local);
}

i64 NodeChunk::tokens_arrived() const {
    return sum(tokens_from_node);
}

i64 NodeChunk::departures() const {
    return sum(tokens_to_node);
}

NodeSizes node_sizes(const Mesh& mesh, const ExchangeSizes& sizes) {
    return node_sizes(mesh.grid(), sizes.tokens, sizes.choices, sizes.capacity_rows, mesh.local_places());
}

DispatchPlan make_node_plan(StepContext& context, const Routing& routing, const ExchangeSizes& sizes,
                            int layer, NodePlanOptions options) {
    const NodeGrid& grid = context.mesh.grid();
    DispatchPlan plan = make_plan(context, routing, {sizes.capacity_rows, sizes.own_rows_first}, layer,
                                  {.destinations = grid.by_node(), .sources = grid.by_local()});
    if (routing.weight.dtype() == DType::f64) {
        NodePlanner<double>(context, sizes, options, plan).plan(routing.weight);
    } else {
        NodePlanner<float>(context, sizes, options, plan).plan(routing.weight);
    }
    return plan;
}

}  // namespace moesaic
