#include "launch/plan/planner.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "comm/exchange/exchange.h"
#include "launch/check_report.h"
#include "launch/memory_estimate.h"
#include "launch/rank_runtime.h"
#include "launch/trainer.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

std::vector<i64> divisors_of(i64 number) {
    std::vector<i64> all;
    for (i64 divisor = 1; divisor <= number; ++divisor) {
        if (number % divisor == 0) all.push_back(divisor);
    }
    return all;
}

/// Sets the layout in a run's configuration, and puts back what was there.
class LayoutInConfig {
  public:
    LayoutInConfig(RunSetup& run, const PlannedLayout& layout, const std::string& exchange)
        : run_(run), kept_(run.config.parallel), exchange_(run.spec.exchange) {
        run.config.parallel.expert = layout.expert_parallel;
        run.config.parallel.expert_tensor = layout.expert_tensor;
        run.config.parallel.exchange = run.spec.exchange.name = exchange;
    }
    ~LayoutInConfig() {
        run_.config.parallel = kept_;
        run_.spec.exchange = exchange_;
    }
    LayoutInConfig(const LayoutInConfig&) = delete;
    LayoutInConfig& operator=(const LayoutInConfig&) = delete;

  private:
    RunSetup& run_;
    ParallelConfig kept_;
    ExchangeSettings exchange_;
};

class Planner {
  public:
    Planner(RunSetup& run, const ClusterConfig& cluster, const PlanOptions& options)
        : run_(run), cluster_(cluster), options_(options) {}

    std::vector<PlanRow> rows() {
        std::vector<PlanRow> all;
        for (const PlannedLayout& layout : layouts()) all.push_back(best_of(layout));
        std::ranges::stable_sort(all, std::greater<>(), &PlanRow::tokens_per_s);
        return all;
    }

    void find_memory(std::vector<PlanRow>& rows) {
        const double room = cluster_.device.memory_gib * (1 << 30);
        long fitting = 0;
        for (PlanRow& row : rows) {
            if (fitting >= options_.rows) break;
            const LayoutInConfig here(run_, row.layout, row.exchange);
            row.memory_bytes = estimate_memory(run_, static_cast<int>(row.layout.ranks),
                                               static_cast<int>(row.layout.expert_parallel),
                                               static_cast<int>(ranks_on_node(row.layout)))
                                   .pool_bytes();
            const double sharing =
                cluster_.device.of_host ? static_cast<double>(ranks_on_node(row.layout)) : 1;
            row.fits = static_cast<double>(*row.memory_bytes) * sharing <= room;
            fitting += row.fits;
        }
        std::stable_partition(rows.begin(), rows.end(), [](const PlanRow& row) { return row.fits; });
    }

  private:
    i64 ranks_on_node(const PlannedLayout& layout) const {
        return std::min(layout.ranks, cluster_.ranks_per_node);
    }
    /// Of the ranks of an expert-parallel group, which hold slice 0.
    i64 expert_ranks_on_node(const PlannedLayout& layout) const {
        return std::max<i64>(1,
                             std::min(layout.expert_parallel, ranks_on_node(layout) / layout.expert_tensor));
    }

    std::vector<PlannedLayout> layouts() const {
        std::vector<i64> worlds(options_.ranks.begin(), options_.ranks.end());
        if (worlds.empty()) worlds = worlds_of(cluster_);
        std::vector<PlannedLayout> all;
        for (const i64 ranks : worlds) {
            for (const i64 expert : divisors_of(std::max<i64>(run_.spec.experts, 1))) {
                for (const i64 slices : slices_for(ranks)) {
                    const PlannedLayout layout{ranks, expert, slices};
                    if (valid(layout)) all.push_back(layout);
                }
            }
        }
        return all;
    }

    /// Slices of an expert: as configured, and whole ones; more only where they are asked for.
    std::vector<i64> slices_for(i64 ranks) const {
        std::vector<i64> slices{1};
        const i64 configured = run_.config.parallel.expert_tensor;
        if (configured > 1 && ranks % configured == 0) slices.push_back(configured);
        return slices;
    }

    bool valid(const PlannedLayout& layout) const {
        const i64 group = layout.group(), each = ranks_on_node(layout);
        if (layout.ranks % group != 0) return false;
        if (!run_.spec.routes_rows() && layout.expert_parallel > 1) return false;
        return each % group == 0 || group % each == 0;  // groups that lie evenly on nodes
    }

    std::vector<std::string> exchanges_of(const PlannedLayout& layout) const {
        if (layout.group() == 1) return {"flat"};
        if (layout.group() > cluster_.ranks_per_node) return {"flat", "hierarchical", "dedup"};
        if (cluster_.device.of_host) return {"shared_memory"};
        return {"flat"};
    }

    const RoutedRows& routed(const PlannedLayout& layout) {
        const auto key = std::tuple(layout.expert_parallel, expert_ranks_on_node(layout));
        const auto known = routed_.find(key);
        if (known != routed_.end()) return known->second;
        PatternShape shape;
        shape.experts = run_.spec.experts;
        shape.top_k = run_.spec.top_k;
        shape.ranks = static_cast<int>(layout.expert_parallel);
        shape.tokens_per_rank = run_.spec.micro_tokens();
        shape.seed = static_cast<u64>(run_.config.run.seed);
        const i64 each = expert_ranks_on_node(layout);
        return routed_.emplace(key, route_rows(options_.traffic, shape, static_cast<int>(each)))
            .first->second;
    }

    PlanRow best_of(const PlannedLayout& layout) {
        std::optional<PlanRow> best;
        for (const std::string& exchange : exchanges_of(layout)) {
            PlanRow row = row_of(layout, exchange);
            if (!best || row.tokens_per_s > best->tokens_per_s) best = std::move(row);
        }
        return *best;
    }

    PlanRow row_of(const PlannedLayout& layout, const std::string& exchange) {
        PlanRow row;
        row.layout = layout;
        row.exchange = exchange;
        row.nodes = (layout.ranks + cluster_.ranks_per_node - 1) / cluster_.ranks_per_node;
        row.work = step_work(run_, layout, cluster_.device.of_host);
        const TrainConfig& train = run_.config.train;
        const i64 batches = (train.batch_sequences + train.micro_sequences - 1) / train.micro_sequences;
        row.idle_ranks = std::max<i64>(0, layout.ranks - batches);
        SimulatedExchange layer;
        if (layout.group() > 1 && run_.spec.routes_rows()) {
            const RoutedRows& rows = routed(layout);
            row.fullest_over_mean = rows.fullest_over_mean();
            const i64 row_bytes = run_.spec.width * size_of(precision_of(run_.config)) * layout.expert_tensor;
            layer = simulate_layer(exchange, rows, row_bytes, static_cast<int>(expert_ranks_on_node(layout)),
                                   cluster_.device);
        }
        const RankDevice rank = rank_device(cluster_, run_.config.train.precision, ranks_on_node(layout));
        row.times = step_times(row.work, run_.spec, layout, cluster_, rank, row.fullest_over_mean, layer);
        add_traffic(row);
        const auto tokens = static_cast<double>(train.batch_sequences * run_.spec.seq_len);
        row.tokens_per_s = tokens / row.times.step();
        row.utilization = model_flops_per_token(run_.spec) * row.tokens_per_s /
                          (rank.flops * static_cast<double>(layout.ranks));
        return row;
    }

    /// By the closed forms that `train --check` prints.
    void add_traffic(PlanRow& row) {
        const LayoutInConfig here(run_, row.layout, row.exchange);
        ExchangeSettings settings = run_.spec.exchange;
        const TrafficEstimate traffic = estimate_traffic(
            run_, static_cast<int>(row.layout.ranks), static_cast<int>(row.layout.expert_parallel),
            static_cast<int>(ranks_on_node(row.layout)), settings);
        for (const ExpectedBytes& line : traffic.exchange) {
            if (line.phase == kCountsPhase) continue;
            row.row_bytes_same_node += line.same_node;
            row.row_bytes_cross_node += line.cross_node;
        }
        row.gradient_bytes = traffic.gradients;
    }

    RunSetup& run_;
    const ClusterConfig& cluster_;
    const PlanOptions& options_;
    std::map<std::tuple<i64, i64>, RoutedRows> routed_;
};

}  // namespace

std::vector<i64> worlds_of(const ClusterConfig& cluster) {
    std::vector<i64> worlds = divisors_of(cluster.ranks_per_node);
    for (const i64 nodes : divisors_of(cluster.nodes)) {
        if (nodes > 1) worlds.push_back(nodes * cluster.ranks_per_node);
    }
    return worlds;
}

std::vector<PlanRow> plan_layouts(RunSetup& run, const ClusterConfig& cluster, const PlanOptions& options) {
    if (run.spec.kind == ModelKind::momlp)
        throw UserError("plan: not for model.kind momlp, whose ranks exchange no rows; see train --check");
    for (const long ranks : options.ranks) {
        if (ranks > cluster.ranks())
            throw UserError(fmt::format("--ranks {}: {} has {} nodes of {} ranks, {} in all", ranks,
                                        cluster.file, cluster.nodes, cluster.ranks_per_node,
                                        cluster.ranks()));
    }
    Planner planner(run, cluster, options);
    std::vector<PlanRow> rows = planner.rows();
    if (rows.empty())
        throw UserError(
            fmt::format("no layout of {} experts fits: expert-parallel ranks have to divide the "
                        "experts and the ranks, and lie evenly on nodes",
                        run.spec.experts));
    planner.find_memory(rows);
    return rows;
}

}  // namespace moesaic
