#include "comm/exchange/choose_exchange.h"

#include <algorithm>
#include <chrono>

#include "comm/host_values.h"
#include "runtime/base/median.h"
#include "runtime/base/philox.h"

namespace moesaic {

namespace {

constexpr double kLongestPass = 0.02;   // seconds, about
constexpr double kMeasuringTime = 0.4;  // seconds for all candidates
constexpr int kFewestTurns = 7, kMostTurns = 51;
constexpr int kFirstPasses = 3, kMostTries = 3;
constexpr double kEnoughGrowth = 2;
constexpr i64 kFirstTryBytes = i64{1} << 20;
constexpr double kWorthIt = 0.03;  // less than that is noise: the simpler one then

/// Collective over the world, of a number.
double agree(StepContext& context, double mine, ReduceOp op) {
    context.mesh.world().all_reduce(context.exchange, view_of(&mine, {1}), op, {"choice of exchange"});
    context.exchange.synchronize();
    return mine;
}

/// One micro-batch of `tokens` tokens on every rank, each with different experts at random.
class Trial {
  public:
    Trial(StepContext& context, const ExchangeSizes& sizes, i64 tokens) : context_(context), sizes_(sizes) {
        Backend& backend = context.backend;
        const i64 experts = context.mesh.total_experts();
        const i64 choices = sizes.choices / context.mesh.expert_tensor();  // the router's
        x_ = backend.allocate({tokens, sizes.width}, sizes.dtype);
        backend.zero(context.compute, x_);
        routing_.weight = backend.allocate({tokens, choices}, accumulation_type(sizes.dtype));
        backend.zero(context.compute, routing_.weight);
        weight_ = backend.allocate({tokens, sizes.choices}, accumulation_type(sizes.dtype));
        backend.zero(context.compute, weight_);
        routing_.expert = backend.allocate({tokens, choices}, DType::int32);
        const Philox random(1, "exchange trial");
        std::vector<i32> all(static_cast<std::size_t>(experts)), chosen;
        for (i64 i = 0; i < experts; ++i) all[static_cast<std::size_t>(i)] = static_cast<i32>(i);
        for (i64 token = 0; token < tokens; ++token) {
            const auto number = static_cast<u64>(context.mesh.world().rank() * tokens + token);
            for (i64 k = 0; k < choices; ++k) {
                const u64 draw = random.bits(number * static_cast<u64>(choices) + static_cast<u64>(k));
                std::swap(all[static_cast<std::size_t>(k)],
                          all[static_cast<std::size_t>(k) + draw % static_cast<u64>(experts - k)]);
                chosen.push_back(all[static_cast<std::size_t>(k)]);
            }
        }
        context.compute.synchronize();
        store_values(context, chosen, routing_.expert);
    }

    /// Collective over the world. Seconds of the slowest rank.
    double pass(Exchange& exchange) {
        context_.mesh.world().barrier({"choice of exchange"});
        const auto start = std::chrono::steady_clock::now();
        const DispatchPlan plan = exchange.plan(context_, routing_, -1);
        ExchangeSaved saved;
        for (std::size_t round = 0; round < plan.chunks.size(); ++round) {
            (void)exchange.finish_arrival(context_, plan, round,
                                          exchange.start_dispatch(context_, plan, round, x_));
            exchange.combine(context_, plan, round, results(exchange, plan.chunks[round]), weight_, saved);
        }
        const Tensor y = exchange.finish_combine(context_, plan, weight_, saved);
        ExchangeBackward backward = exchange.begin_backward(context_, plan, y, weight_, saved);
        for (std::size_t round = 0; round < plan.chunks.size(); ++round) {
            (void)exchange.finish_arrival(context_, plan, round,
                                          exchange.start_combine_backward(context_, plan, round, backward));
            exchange.dispatch_backward(context_, plan, round, results(exchange, plan.chunks[round]),
                                       backward);
        }
        (void)exchange.finish_backward(context_, plan, std::move(backward));
        context_.compute.synchronize();
        context_.exchange.synchronize();
        const std::chrono::duration<double> mine = std::chrono::steady_clock::now() - start;
        return agree(context_, mine.count(), ReduceOp::max);
    }

  private:
    /// Zeros, but for what no row of the round takes: filling all there is room for would be most of the
    /// time.
    ExpertRows results(Exchange& exchange, const DispatchChunk& chunk) {
        ExpertRows rows = exchange.result_rows(context_);
        context_.backend.zero(context_.compute, rows.rows.slice_rows(0, chunk.received()));
        return rows;
    }

    StepContext& context_;
    ExchangeSizes sizes_;
    Tensor x_, weight_;
    Routing routing_;
};

/// Collective over the world. Seconds of each, the first one's median times the median of the others' over
/// its in the same turn: what disturbs the machine for longer than a turn then disturbs all alike.
std::vector<double> measure(Trial& trial, const std::vector<std::unique_ptr<Exchange>>& exchanges) {
    std::vector<std::vector<double>> over_first(exchanges.size());
    std::vector<double> first;
    for (const auto& exchange : exchanges) (void)trial.pass(*exchange);  // warm-up
    double spent = 0;
    for (int turn = 0; turn < kFewestTurns || (turn < kMostTurns && spent < kMeasuringTime); ++turn) {
        for (std::size_t i = 0; i < exchanges.size(); ++i) {
            const double seconds = std::max(trial.pass(*exchanges[i]), 1e-9);
            if (i == 0) first.push_back(seconds);
            over_first[i].push_back(seconds / first.back());
            spent += seconds;
        }
    }
    std::vector<double> times;
    for (const std::vector<double>& one : over_first)
        times.push_back(upper_median(first) * upper_median(one));
    return times;
}

/// Collective over the world. Of `tokens`; what disturbs a pass only adds to it.
double fastest_pass(StepContext& context, const ExchangeSizes& sizes, Exchange& exchange, i64 tokens) {
    Trial trial(context, sizes, tokens);
    (void)trial.pass(exchange);
    double fastest = trial.pass(exchange);
    for (int pass = 1; pass < kFirstPasses; ++pass) fastest = std::min(fastest, trial.pass(exchange));
    return fastest;
}

/// Collective over the world. So many that flat takes about kLongestPass, at most a micro-batch's. More than
/// one try: where the first few were disturbed, too few tokens would follow, for which all exchanges are
/// alike.
i64 tokens_to_try(StepContext& context, const ExchangeSizes& sizes, const ExchangeSettings& settings) {
    const i64 token_bytes = sizes.choices * sizes.width * size_of(sizes.dtype);
    const auto flat = make_exchange(context.mesh, sizes, settings);
    i64 tokens = std::clamp<i64>(kFirstTryBytes / token_bytes, 1, sizes.tokens);
    for (int tries = 0; tries < kMostTries && tokens < sizes.tokens; ++tries) {
        const double growth = kLongestPass / std::max(fastest_pass(context, sizes, *flat, tokens), 1e-6);
        if (tries > 0 && growth < kEnoughGrowth) break;
        tokens = std::clamp<i64>(static_cast<i64>(static_cast<double>(tokens) * growth), 1, sizes.tokens);
    }
    return tokens;
}

/// Collective over the world. Groups of other replicas may lie otherwise; the choice is one for all. Flat
/// comes first.
std::vector<const ExchangeKind*> kinds_that_fit(StepContext& context) {
    const NodeGrid& grid = context.mesh.grid();
    const bool several_nodes = agree(context, grid.nodes, ReduceOp::max) > 1;
    const bool even = agree(context, grid.even() ? 1 : 0, ReduceOp::min) > 0;
    const bool alone = context.mesh.experts().size() == 1;
    const bool mates = even && agree(context, grid.ranks_per_node(), ReduceOp::max) > 1;
    std::vector<const ExchangeKind*> kinds;
    for (const ExchangeKind& kind : exchange_table()) {
        const bool gains =
            kind.needs_even_nodes ? several_nodes && even : !kind.for_one_node || (!several_nodes && !alone);
        if (gains && (mates || !kind.joins_node_mates)) kinds.push_back(&kind);
    }
    return kinds;
}

/// Collective over the world. Null where this allocation has no room for it, or wire types forbid it.
std::unique_ptr<Exchange> make_or_leave_out(StepContext& context, const ExchangeSizes& sizes,
                                            const ExchangeSettings& settings) {
    std::unique_ptr<Exchange> exchange;
    try {
        exchange = make_exchange(context.mesh, sizes, settings);
    } catch (const UserError&) {  // of all ranks of a group alike
    }
    return agree(context, exchange ? 1 : 0, ReduceOp::min) > 0 ? std::move(exchange) : nullptr;
}

}  // namespace

std::string ExchangeChoice::text() const {
    std::string text = fmt::format("exchange {}", settings.name);
    if (measured.empty()) return text;
    text += fmt::format(", chosen by measurement of {} tokens a rank: ", tokens);
    for (std::size_t i = 0; i < measured.size(); ++i)
        text += fmt::format("{}{} {:.2f} ms", i ? ", " : "", measured[i].name, measured[i].milliseconds);
    return text;
}

ExchangeChoice choose_exchange(StepContext& context, const ExchangeSizes& sizes,
                               const ExchangeSettings& settings) {
    ExchangeChoice choice{settings, {}, 0};
    choice.settings.name = "flat";
    choice.settings.reduce_on_node = false;
    if (!context.mesh.world().connected() || !context.backend.computes()) return choice;
    const std::vector<const ExchangeKind*> kinds = kinds_that_fit(context);
    std::vector<ExchangeSettings> candidates;
    std::vector<std::unique_ptr<Exchange>> exchanges;
    for (const ExchangeKind* kind : kinds) {
        ExchangeSettings settings_of_kind = choice.settings;
        settings_of_kind.name = kind->name;
        auto exchange = make_or_leave_out(context, sizes, settings_of_kind);
        if (!exchange) continue;
        candidates.push_back(settings_of_kind);
        exchanges.push_back(std::move(exchange));
    }
    if (exchanges.size() == 1) return choice;
    choice.tokens = tokens_to_try(context, sizes, choice.settings);
    Trial trial(context, sizes, choice.tokens);
    const std::vector<double> seconds = measure(trial, exchanges);
    double best = seconds[0];
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        choice.measured.push_back({candidates[i].name, seconds[i] * 1e3});
        if (seconds[i] >= best * (1 - kWorthIt)) continue;
        best = seconds[i];
        choice.settings = candidates[i];
    }
    return choice;
}

}  // namespace moesaic
