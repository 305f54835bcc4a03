// moesaic plan: layouts on a cluster, ranked by predicted speed.
#include <cstdio>

#include "launch/commands/commands.h"
#include "launch/plan/planner.h"
#include "launch/ranks.h"
#include "runtime/base/error.h"
#include "runtime/metrics/console_sink.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

/// What these numbers are worth, for people.
std::string worth_of(const ClusterConfig& cluster) {
    if (!cluster.device.of_host)
        return fmt::format(
            "PREDICTION for {}, which nothing here was measured on: nominal figures ({}), shares of the peak "
            "that are assumed, and rows that go from device to device",
            cluster.device.name, cluster.device.source);
    const std::string beyond =
        cluster.nodes > 1 ? "; more than one machine is a PREDICTION beyond what was measured" : "";
    return fmt::format(
        "peaks measured on this machine just now; launch/plan/README.md says how far plans of runs that the "
        "model had not seen were off{}",
        beyond);
}

std::string percent(double share) {
    return fmt::format("{:.1f}%", 100 * share);
}

void print_row(const PlanRow& row) {
    const double step = row.times.step();
    std::printf(" %6lld %5lld %6lld %8lld  %-13s %5.0f %9s %9s %9s %9.3f %9s %7s %8s %8s %6s  %s\n",
                static_cast<long long>(row.layout.ranks), static_cast<long long>(row.layout.expert_parallel),
                static_cast<long long>(row.layout.expert_tensor),
                static_cast<long long>(row.layout.replicas()), row.exchange.c_str(), row.work.micro_steps,
                row.memory_bytes ? detail::bytes_text(static_cast<double>(*row.memory_bytes)).c_str() : "-",
                detail::bytes_text(row.row_bytes_same_node).c_str(),
                detail::bytes_text(row.row_bytes_cross_node).c_str(), 1e3 * step,
                detail::compact_text(row.tokens_per_s).c_str(), percent(row.utilization).c_str(),
                percent(row.times.exchange / step).c_str(), percent(row.times.gradients / step).c_str(),
                fmt::format("{:.2f}", row.fullest_over_mean).c_str(),
                !row.fits            ? "does not fit"
                : row.idle_ranks > 0 ? fmt::format("{} ranks idle", row.idle_ranks).c_str()
                                     : "");
}

void print_table(const RunSetup& run, const ClusterConfig& cluster, const PlanOptions& options,
                 const std::vector<PlanRow>& rows) {
    const DeviceProfile& device = cluster.device;
    std::printf("# %s on %lld nodes of %lld ranks, %s: %s\n", run.config.run.name.c_str(),
                static_cast<long long>(cluster.nodes), static_cast<long long>(cluster.ranks_per_node),
                device.name.c_str(), worth_of(cluster).c_str());
    std::printf(
        "# %s %.4g TFLOP/s, memory %.4g GiB at %.4g GB/s, between ranks %.4g GB/s and %.4g us, between nodes "
        "%.4g GB/s and %.4g us\n",
        run.config.train.precision.c_str(),
        run.config.train.precision == "bf16"   ? device.bf16_tflops
        : run.config.train.precision == "fp64" ? device.fp64_tflops
                                               : device.fp32_tflops,
        device.memory_gib, device.memory_gb_per_s, device.node.gb_per_s, device.node.latency_us,
        device.network.gb_per_s, device.network.latency_us);
    std::printf("# global batch %lld sequences of %lld, routing %s\n",
                static_cast<long long>(run.config.train.batch_sequences),
                static_cast<long long>(run.spec.seq_len), options.traffic.c_str());
    std::printf("# %5s %5s %6s %8s  %-13s %5s %9s %9s %9s %9s %9s %7s %8s %8s %6s\n", "ranks", "exp.", "exp.",
                "replicas", "exchange", "micro", "memory", "rows, B", "rows, B", "step", "tokens", "MFU",
                "exchange", "gradient", "load");
    std::printf("# %5s %5s %6s %8s  %-13s %5s %9s %9s %9s %9s %9s %7s %8s %8s %6s\n", "", "par.", "tensor",
                "", "", "steps", "a rank", "in nodes", "between", "(ms)", "a second", "", "(share)",
                "(share)", "max/m");
    for (std::size_t i = 0; i < rows.size() && i < static_cast<std::size_t>(options.rows); ++i)
        print_row(rows[i]);
    if (rows.size() > static_cast<std::size_t>(options.rows))
        std::printf("# %zu layouts more: --rows, --json\n",
                    rows.size() - static_cast<std::size_t>(options.rows));
}

std::string json_of_row(const PlanRow& row) {
    JsonLine json;
    json.field("ranks", row.layout.ranks).field("expert_parallel", row.layout.expert_parallel);
    json.field("expert_tensor", row.layout.expert_tensor).field("replicas", row.layout.replicas());
    json.field("nodes", row.nodes).field("exchange", row.exchange);
    json.field("memory_bytes", row.memory_bytes).field("fits", row.fits);
    json.field("row_bytes_same_node", row.row_bytes_same_node);
    json.field("row_bytes_cross_node", row.row_bytes_cross_node).field("gradient_bytes", row.gradient_bytes);
    json.field("step_ms", 1e3 * row.times.step()).field("tokens_per_s", row.tokens_per_s);
    json.field("flops_utilization", row.utilization).field("load_max_over_mean", row.fullest_over_mean);
    json.field("idle_ranks", row.idle_ranks).field("seconds", row.times).field("work", row.work);
    return json.text();
}

void print_json(const RunSetup& run, const ClusterConfig& cluster, const PlanOptions& options,
                const std::vector<PlanRow>& rows) {
    JsonLine json;
    json.field("ok", rows.front().fits).field("config", run.config.run.name).field("cluster", cluster.file);
    json.field("device", cluster.device.name).field("nodes", cluster.nodes);
    json.field("ranks_per_node", cluster.ranks_per_node).field("traffic", options.traffic);
    json.field("measured_here", cluster.device.of_host && cluster.nodes == 1)
        .field("note", worth_of(cluster));
    std::string text = json.text();
    text.pop_back();
    text += ",\"rows\":[";
    for (std::size_t i = 0; i < rows.size(); ++i) text += (i > 0 ? "," : "") + json_of_row(rows[i]);
    std::printf("%s]}\n", text.c_str());
}

}  // namespace

int plan_command(const PlanCommandOptions& options) {
    return run_on_ranks(0, [&](Communicator& world) {
        if (world.size() > 1)
            throw UserError("plan: one process plans for all ranks; start it without mpirun");
        Diagnostics diagnostics;
        ClusterConfig cluster = load_cluster(options.cluster, diagnostics);
        diagnostics.throw_if_any();
        RunSetup run = load_run(options.config, options.overrides);
        measure_host(cluster);
        const PlanOptions how{options.ranks, options.traffic, options.rows};
        const std::vector<PlanRow> rows = plan_layouts(run, cluster, how);
        options.json ? print_json(run, cluster, how, rows) : print_table(run, cluster, how, rows);
        return rows.front().fits ? 0 : 3;
    });
}

}  // namespace moesaic
