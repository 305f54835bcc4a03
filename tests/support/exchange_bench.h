// One micro-batch there and back through an exchange, on ranks as threads, and what should come of it.
#pragma once

#include <cmath>
#include <list>
#include <numeric>
#include <string>
#include <vector>

#include "comm/exchange/exchange.h"
#include "tests/support/rank_setup.h"
#include "tests/support/routing_cases.h"

namespace moesaic {

struct ExchangeLayout {
    int ranks = 1, experts = 1, replicas = 1;
    std::vector<int> node_of_rank = {};  ///< of the world; empty: one node
    StreamChoice streams = {};
    bool own_rows_first = false;
};

/// Consecutive ranks on each node.
inline std::vector<int> block_nodes(int ranks, int ranks_per_node) {
    std::vector<int> nodes;
    for (int rank = 0; rank < ranks; ++rank) nodes.push_back(rank / ranks_per_node);
    return nodes;
}

/// Every kind of exchange in every variant.
inline std::vector<ExchangeSettings> exchange_variants() {
    std::vector<ExchangeSettings> all;
    for (const ExchangeKind& kind : exchange_table()) all.push_back({.name = std::string(kind.name)});
    all.push_back({.name = "dedup", .reduce_on_node = true});
    return all;
}

/// What one rank saw; all rounds one after the other. Rows are [., kExchangeWidth].
struct ExchangeSeen {
    std::vector<double> rows, d_results;  // received, grouped by expert
    std::vector<double> y, dx, d_weight;
    std::vector<i64> received;              // per round
    std::vector<TrafficLedger::Line> sent;  // by this rank
};

inline constexpr i64 kExchangeWidth = 5;
inline constexpr int kExchangeLayer = 3;

namespace exchange_detail {

/// Row number `number` of a matrix called `name`: other numbers and other names give other values.
inline double value_of(std::string_view name, double number, i64 column) {
    return number + static_cast<double>(column) / 8 + static_cast<double>(hash_name(name) % 64) / 1024;
}
inline void push_row(std::vector<double>& rows, std::string_view name, double number) {
    for (i64 column = 0; column < kExchangeWidth; ++column) rows.push_back(value_of(name, number, column));
}
/// A number that only this token at this expert has.
inline double result_number(const RoutedRow& row) {
    return RoutingCase::token_number(row.source, row.token) + 100000.0 * static_cast<double>(row.expert + 1);
}
inline double weight_of(i64 source, i64 token, i64 choice) {
    return 0.1 + static_cast<double>((source * 31 + token * 7 + choice * 3) % 17) / 3.0;
}

/// One rank's side.
class ExchangeBench {
  public:
    ExchangeBench(RankSetup& setup, const ExchangeSettings& settings, const RoutingCase& routing,
                  i64 capacity, bool own_rows_first = false)
        : setup_(setup),
          routing_(routing),
          rank_(setup.mesh.experts().rank()),
          tokens_(routing.tokens[static_cast<std::size_t>(rank_)]) {
        ExchangeSizes sizes;
        sizes.tokens = std::max<i64>(1, std::ranges::max(routing.tokens));
        sizes.choices = routing.choices;
        sizes.width = kExchangeWidth;
        sizes.capacity_rows = capacity;
        sizes.own_rows_first = own_rows_first;
        sizes.dtype = DType::f64;
        exchange_ = make_exchange(setup.mesh, sizes, settings);
        setup.mesh.place_experts(kExchangeLayer, routing.placement);
        const std::vector<i64> rounds = routing.rounds_of(rank_, capacity, own_rows_first);
        in_rounds_.resize(rounds.size());
        std::iota(in_rounds_.begin(), in_rounds_.end(), std::size_t{0});
        std::ranges::stable_sort(in_rounds_, {}, [&](std::size_t row) { return rounds[row]; });
    }

    /// Collective over mesh.experts(). Nothing waits for the streams between the plan and the end.
    ExchangeSeen there_and_back() {
        upload_inputs();
        const DispatchPlan plan = exchange_->plan(setup_.context, routing_of_rank_, kExchangeLayer);
        ExchangeSaved saved;
        for (std::size_t round = 0; round < plan.chunks.size(); ++round) forward(plan, round, saved);
        const Tensor y = exchange_->finish_combine(setup_.context, plan, routing_of_rank_.weight, saved);
        ExchangeBackward backward =
            exchange_->begin_backward(setup_.context, plan, dy_, routing_of_rank_.weight, saved);
        for (std::size_t round = 0; round < plan.chunks.size(); ++round)
            this->backward(plan, round, backward);
        const ExchangeGradients gradients =
            exchange_->finish_backward(setup_.context, plan, std::move(backward));
        ExchangeSeen seen;
        seen.y = setup_.read<double>(y);
        seen.dx = setup_.read<double>(gradients.dx);
        seen.d_weight = setup_.read<double>(gradients.d_weight);
        for (std::size_t round = 0; round < plan.chunks.size(); ++round) {
            const i64 received = plan.chunks[round].received();
            append(seen.rows, rows_[round].slice_rows(0, received));
            append(seen.d_results, d_results_[round].slice_rows(0, received));
            seen.received.push_back(received);
        }
        seen.rows = in_grouped_order(seen.rows);
        seen.d_results = in_grouped_order(seen.d_results);
        setup_.drain();
        for (const TrafficLedger::Line& line : setup_.mesh.world().ledger().lines()) {
            if (line.layer == kExchangeLayer) seen.sent.push_back(line);
        }
        return seen;
    }

  private:
    void upload_inputs() {
        std::vector<double> x, dy, weight;
        for (i64 token = 0; token < tokens_; ++token) {
            push_row(x, "x", RoutingCase::token_number(rank_, token));
            push_row(dy, "dy", RoutingCase::token_number(rank_, token));
            for (i64 choice = 0; choice < routing_.choices; ++choice)
                weight.push_back(weight_of(rank_, token, choice));
        }
        for (const RoutedRow& row : routing_.received_by(rank_)) {
            push_row(results_, "result", result_number(row));
            push_row(d_rows_, "d_row", result_number(row));
        }
        x_ = upload(x, {tokens_, kExchangeWidth});
        dy_ = upload(dy, {tokens_, kExchangeWidth});
        routing_of_rank_.weight = upload(weight, {tokens_, routing_.choices});
        const std::vector<i32>& expert = routing_.expert[static_cast<std::size_t>(rank_)];
        routing_of_rank_.expert = setup_.backend->allocate({tokens_, routing_.choices}, DType::int32);
        setup_.backend->copy(*setup_.compute, view_of(expert.data(), routing_of_rank_.expert.shape()),
                             routing_of_rank_.expert);
    }
    void forward(const DispatchPlan& plan, std::size_t round, ExchangeSaved& saved) {
        StepContext& context = setup_.context;
        const ArrivedRows rows = exchange_->finish_arrival(
            context, plan, round, exchange_->start_dispatch(context, plan, round, x_));
        keep(rows, plan.chunks[round].received(), rows_);
        ExpertRows results = exchange_->result_rows(context);
        fill(results, results_, plan, round);
        exchange_->combine(context, plan, round, std::move(results), routing_of_rank_.weight, saved);
        overwrite_freed_memory();
    }
    void backward(const DispatchPlan& plan, std::size_t round, ExchangeBackward& backward) {
        StepContext& context = setup_.context;
        const ArrivedRows d_results = exchange_->finish_arrival(
            context, plan, round, exchange_->start_combine_backward(context, plan, round, backward));
        keep(d_results, plan.chunks[round].received(), d_results_);
        ExpertRows d_rows = exchange_->result_rows(context);
        fill(d_rows, d_rows_, plan, round);
        exchange_->dispatch_backward(context, plan, round, std::move(d_rows), backward);
        overwrite_freed_memory();
    }
    void keep(const ArrivedRows& rows, i64 received, std::vector<Tensor>& kept) {
        kept.push_back(setup_.backend->allocate({exchange_->capacity_rows(), kExchangeWidth}, DType::f64));
        gather_rows(setup_.context, rows.by_expert(received), kept.back().slice_rows(0, received));
    }
    /// This round's share of all received rows.
    void fill(const ExpertRows& to, const std::vector<double>& all, const DispatchPlan& plan,
              std::size_t round) {
        i64 first = 0;
        for (std::size_t before = 0; before < round; ++before) first += plan.chunks[before].received();
        const i64 received = plan.chunks[round].received();
        if (received == 0) return;
        std::vector<double>& part = parts_.emplace_back();  // read when the stream comes to it
        for (i64 i = first; i < first + received; ++i) {
            const auto row =
                all.begin() +
                static_cast<std::ptrdiff_t>(in_rounds_.at(static_cast<std::size_t>(i))) * kExchangeWidth;
            part.insert(part.end(), row, row + kExchangeWidth);
        }
        setup_.backend->copy(*setup_.compute, view_of(part.data(), {received, kExchangeWidth}),
                             to.rows.slice_rows(0, received));
    }
    /// Rows that came round by round.
    [[nodiscard]] std::vector<double> in_grouped_order(const std::vector<double>& rows) const {
        std::vector<double> grouped(rows.size());
        for (std::size_t i = 0; i < rows.size() / kExchangeWidth; ++i)
            std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(i) * kExchangeWidth, kExchangeWidth,
                        grouped.begin() + static_cast<std::ptrdiff_t>(in_rounds_.at(i)) * kExchangeWidth);
        return grouped;
    }
    /// What was given back too early is seen to change.
    void overwrite_freed_memory() {
        Tensor scratch = setup_.backend->allocate({exchange_->capacity_rows(), kExchangeWidth}, DType::f64);
        setup_.backend->zero(*setup_.compute, scratch);
    }
    Tensor upload(const std::vector<double>& values, Shape shape) {
        Tensor tensor = setup_.backend->allocate(shape, DType::f64);
        setup_.backend->copy(*setup_.compute, view_of(values.data(), shape), tensor);
        setup_.compute->synchronize();
        return tensor;
    }
    void append(std::vector<double>& all, ConstTensorView rows) {
        const std::vector<double> more = setup_.read<double>(rows);
        all.insert(all.end(), more.begin(), more.end());
    }

    RankSetup& setup_;
    const RoutingCase& routing_;
    int rank_;
    i64 tokens_;
    std::unique_ptr<Exchange> exchange_;
    Routing routing_of_rank_;
    Tensor x_, dy_;
    std::vector<double> results_, d_rows_;
    std::vector<std::size_t> in_rounds_;    // rows by their place in grouped order, round by round
    std::list<std::vector<double>> parts_;  // of results, each for a round
    std::vector<Tensor> rows_, d_results_;
};

}  // namespace exchange_detail

/// By world rank.
inline std::vector<ExchangeSeen> run_exchange(const ExchangeLayout& layout, const ExchangeSettings& settings,
                                              const RoutingCase& routing, i64 capacity) {
    std::vector<ExchangeSeen> seen(static_cast<std::size_t>(layout.ranks * layout.replicas));
    run_ranks(layout.ranks * layout.replicas, [&](Communicator& world) {
        const std::vector<int> one_node(static_cast<std::size_t>(world.size()), 0);
        RankSetup setup(world, layout.ranks, layout.experts, layout.streams,
                        layout.node_of_rank.empty() ? one_node : layout.node_of_rank);
        exchange_detail::ExchangeBench bench(setup, settings, routing, capacity, layout.own_rows_first);
        seen[static_cast<std::size_t>(world.rank())] = bench.there_and_back();
    });
    return seen;
}

/// What `rank` has to see, by definition. Sums over choices are in their order, from zero.
inline ExchangeSeen oracle(const RoutingCase& routing, i64 rank) {
    using namespace exchange_detail;
    ExchangeSeen seen;
    for (const RoutedRow& row : routing.received_by(rank)) {
        push_row(seen.rows, "x", RoutingCase::token_number(row.source, row.token));
        const double weight = weight_of(row.source, row.token, row.choice);
        for (i64 column = 0; column < kExchangeWidth; ++column)
            seen.d_results.push_back(
                weight * value_of("dy", RoutingCase::token_number(row.source, row.token), column));
    }
    const auto tokens = static_cast<std::size_t>(routing.tokens[static_cast<std::size_t>(rank)]);
    seen.y.assign(tokens * kExchangeWidth, 0.0);
    seen.dx.assign(tokens * kExchangeWidth, 0.0);
    seen.d_weight.assign(tokens * static_cast<std::size_t>(routing.choices), 0.0);
    const auto& chosen = routing.expert[static_cast<std::size_t>(rank)];
    for (i64 i = 0; i < std::ssize(chosen); ++i) {  // token by token, its choices in order
        const i64 token = i / routing.choices, choice = i % routing.choices;
        const RoutedRow row{chosen[static_cast<std::size_t>(i)], rank, token, choice};
        if (row.expert < 0) continue;
        for (i64 column = 0; column < kExchangeWidth; ++column) {
            const auto place = static_cast<std::size_t>(token * kExchangeWidth + column);
            const double result = value_of("result", result_number(row), column);
            seen.y[place] = std::fma(weight_of(rank, token, choice), result, seen.y[place]);
            seen.dx[place] += value_of("d_row", result_number(row), column);
            seen.d_weight[static_cast<std::size_t>(i)] +=
                result * value_of("dy", RoutingCase::token_number(rank, token), column);
        }
    }
    return seen;
}

}  // namespace moesaic
