#include "launch/bench/dispatch_report.h"

#include <algorithm>
#include <cstdio>

#include "runtime/base/build_info.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

/// The most bytes that a rank sends to others or receives from them.
i64 busiest_to_others(RankMatrix bytes) {
    for (int rank = 0; rank < bytes.ranks; ++rank)
        bytes.amount[static_cast<std::size_t>(rank * (bytes.ranks + 1))] = 0;
    return bytes.busiest();
}

/// p50 of the slowest rank's sum over phases [first, last).
TimeSummary slowest_of(const RankTimes& laps, std::size_t first, std::size_t last) {
    std::vector<double> slowest;
    for (i64 i = 0; i < laps.iterations(); i += kPhases) {
        double most = 0;
        for (int rank = 0; rank < laps.ranks; ++rank) {
            double sum = 0;
            for (std::size_t phase = first; phase < last; ++phase)
                sum += laps.at(rank, i + static_cast<i64>(phase));
            most = std::max(most, sum);
        }
        slowest.push_back(most);
    }
    return summary_of(slowest);
}

}  // namespace

void set_times(DispatchLine& line, const RankTimes& laps, const RankMatrix& bytes) {
    for (std::size_t phase = 0; phase < kPhases; ++phase)
        line.phase_us[phase] = slowest_of(laps, phase, phase + 1).p50;
    line.with_plan_us = slowest_of(laps, kPlan, kCopy).p50;
    line.forward_us = slowest_of(laps, kDispatch, kCombineBackward).p50;
    line.backward_us = slowest_of(laps, kCombineBackward, kCopy).p50;
    line.moved.size = bytes.busiest();
    line.moved.slowest = slowest_of(laps, kDispatch, kCopy);
    line.moved.algbw = 4e-3 * static_cast<double>(line.moved.size) / line.moved.slowest.p50;
    line.moved.busbw = 4e-3 * static_cast<double>(busiest_to_others(bytes)) / line.moved.slowest.p50;
    line.moved.imbalance = imbalance_of(bytes);
    line.memcpy_gbs = 1e-3 * static_cast<double>(bytes.busiest()) / line.phase_us[kCopy];
}

std::optional<AutoChoice> judge_auto(const std::vector<DispatchLine>& lines) {
    const auto named = [](const DispatchLine& line) { return !line.exchange.starts_with(kAutoPrefix); };
    const DispatchLine *choosing = nullptr, *taken = nullptr, *fastest = nullptr;
    for (const DispatchLine& line : lines) {
        if (!named(line)) choosing = &line;
        if (named(line) && (!fastest || line.with_plan_us < fastest->with_plan_us)) fastest = &line;
    }
    if (!choosing || !fastest) return std::nullopt;
    for (const DispatchLine& line : lines) {
        if (kAutoPrefix.size() + line.exchange.size() == choosing->exchange.size() &&
            choosing->exchange.ends_with(line.exchange))
            taken = &line;
    }
    if (!taken) return std::nullopt;
    return AutoChoice{taken->exchange, fastest->exchange, taken->with_plan_us / fastest->with_plan_us - 1};
}

void print_dispatch_head(const DispatchOptions& options, const BenchWorld& world, int threads) {
    std::printf("# moesaic version %s (%s)\n", kVersion, kCommit);
    std::printf("# bench dispatch: rows to experts and back, forward and backward (')\n");
    std::printf(
        "# ranks: %zu threads: %d nodes: %d%s type: %s traffic: %s warmup iters: %ld iters: %ld "
        "validation: %ld\n",
        world.ranks.size(), threads, world.nodes(), options.ranks_per_node > 0 ? " (simulated)" : "",
        options.dtype.c_str(), options.routing.traffic.c_str(), static_cast<long>(options.warmup),
        static_cast<long>(options.iterations), static_cast<long>(options.checks));
    std::printf(
        "# times are p50 of the slowest rank; size is one way of the busiest rank, itself included; busbw is "
        "without bytes to itself\n#\n");
    std::printf("# %18s  %7s  %6s  %7s  %3s  %12s", "exchange", "tokens", "width", "experts", "k", "size");
    for (const char* name : kPhaseNames) std::printf("  %9s", name);
    std::printf("  %9s  %9s  %6s  %6s  %6s  %6s  %6s  %6s  %6s  %12s  %12s\n", "p95", "p99", "algbw", "busbw",
                "memcpy", "%", "xMPI", "#wrong", "imbal", "same-node", "cross-node");
    std::printf("# %18s  %7s  %6s  %7s  %3s  %12s", "", "(rank)", "", "", "", "(B)");
    for (std::size_t i = 0; i < kPhases; ++i) std::printf("  %9s", "(us)");
    std::printf("  %9s  %9s  %6s  %6s  %6s  %6s  %6s  %6s  %6s  %12s  %12s\n", "(us)", "(us)", "(GB/s)",
                "(GB/s)", "(GB/s)", "fwd", "fwd", "", "", "(B)", "(B)");
}

void print_dispatch_line(const DispatchOptions& options, const DispatchLine& line) {
    std::string text =
        fmt::format("  {:>18}  {:7}  {:6}  {:7}  {:3}  {:12}", line.exchange, line.tokens, line.width,
                    options.routing.experts, options.routing.top_k, line.moved.size);
    for (std::size_t phase = 0; phase < kPhases; ++phase) {
        const bool measured = phase != kBareMpi || line.has_bare_mpi;
        text += measured ? "  " + fitted(line.phase_us[phase], 9) : fmt::format("  {:>9}", "N/A");
    }
    text += fmt::format("  {}  {}  {}  {}  {}  {}", fitted(line.moved.slowest.p95, 9),
                        fitted(line.moved.slowest.p99, 9), fitted(line.moved.algbw, 6),
                        fitted(line.moved.busbw, 6), fitted(line.memcpy_gbs, 6),
                        fitted(100 * line.forward_gbs() / line.memcpy_gbs, 6));
    text += line.has_bare_mpi ? "  " + fitted(line.over_mpi(), 6) : fmt::format("  {:>6}", "N/A");
    text += line.moved.wrong ? fmt::format("  {:6}", *line.moved.wrong) : fmt::format("  {:>6}", "N/A");
    text += fmt::format("  {}  {:12}  {:12}", fitted(line.moved.imbalance, 6), line.moved.bytes.same_node,
                        line.moved.bytes.cross_node);
    std::printf("%s\n", text.c_str());
    std::fflush(stdout);
}

void print_dispatch_json(const DispatchOptions& options, const BenchWorld& world, const DispatchLine& line) {
    const ExchangeLine& moved = line.moved;
    JsonLine json;
    json.field("bench", "dispatch")
        .field("exchange", line.exchange)
        .field("traffic", options.routing.traffic);
    json.field("tokens", line.tokens).field("width", line.width).field("experts", options.routing.experts);
    json.field("top_k", options.routing.top_k).field("ranks", std::ssize(world.ranks));
    json.field("threads", line.threads).field("nodes", world.nodes()).field("dtype", options.dtype);
    json.field("time_us", moved.slowest).field("plan_us", line.phase_us[kPlan]);
    json.field("dispatch_us", line.phase_us[kDispatch]).field("combine_us", line.phase_us[kCombine]);
    json.field("combine_backward_us", line.phase_us[kCombineBackward]);
    json.field("dispatch_backward_us", line.phase_us[kDispatchBackward]);
    json.field("bytes", moved.size).field("algbw_gbs", moved.algbw).field("busbw_gbs", moved.busbw);
    json.field("forward_gbs", line.forward_gbs()).field("backward_gbs", line.backward_gbs());
    json.field("memcpy_gbs", line.memcpy_gbs);
    json.field("memcpy_fraction", line.forward_gbs() / line.memcpy_gbs);
    if (line.has_bare_mpi) {
        json.field("mpi_alltoallv_us", line.phase_us[kBareMpi]).field("speedup_over_mpi", line.over_mpi());
    }
    json.field("imbalance", moved.imbalance);
    json.field("self_bytes", moved.bytes.self).field("same_node_bytes", moved.bytes.same_node);
    json.field("cross_node_bytes", moved.bytes.cross_node).field("wrong", moved.wrong);
    json.field("host", world.ranks[0].host).field("version", kVersion).field("commit", kCommit);
    std::printf("%s\n", json.text().c_str());
    std::fflush(stdout);
}

void print_auto_choice(const DispatchOptions& options, const DispatchLine& line, const AutoChoice& choice) {
    if (options.json) {
        JsonLine json;
        json.field("bench", "dispatch").field("auto", choice.taken).field("fastest", choice.fastest);
        json.field("tokens", line.tokens).field("width", line.width).field("loss", choice.loss);
        std::printf("%s\n", json.text().c_str());
    } else {
        std::printf("# auto took %s, %.1f %% above the fastest here, %s\n", choice.taken.c_str(),
                    100 * choice.loss, choice.fastest.c_str());
    }
    std::fflush(stdout);
}

}  // namespace moesaic
