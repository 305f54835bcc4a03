#include "launch/bench/nccl_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "comm/mpi_facts.h"
#include "runtime/base/build_info.h"

namespace moesaic {

std::string fitted(double value, int width) {
    for (int decimals = 2; decimals >= 0; --decimals) {
        std::string text = fmt::format("{:{}.{}f}", value, width, decimals);
        if (std::ssize(text) <= width) return text;
    }
    return fmt::format("{:{}.{}e}", value, width, width >= 7 ? 1 : 0);
}

std::string nccl_type_name(DType dtype) {
    return dtype == DType::f64 ? "double" : dtype == DType::bf16 ? "bfloat16" : "float";
}

std::vector<i64> SizeSweep::sizes() const {
    std::vector<i64> sizes;
    for (i64 size = smallest; size <= largest; size = factor ? size * step : size + step)
        sizes.push_back(size);
    return sizes;
}

std::string time_stamp() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::localtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
    return text;
}

void print_nccl_head(const AlltoallOptions& options, const SizeSweep& sweep, const BenchWorld& world) {
    std::printf("# moesaic version %s (%s) mpi: %s\n", kVersion, kCommit, mpi_facts().library.c_str());
    std::printf("# Collective test starting: moesaic bench alltoall\n");
    std::printf(
        "# nThread 1 nGpus 0 minBytes %ld maxBytes %ld step: %ld(%s) warmup iters: %ld iters: %ld agg iters: "
        "1 "
        "validation: %ld graph: 0\n",
        static_cast<long>(sweep.smallest), static_cast<long>(sweep.largest), static_cast<long>(sweep.step),
        sweep.factor ? "factor" : "bytes", static_cast<long>(options.warmup),
        static_cast<long>(options.iterations), static_cast<long>(options.checks));
    std::printf(
        "# traffic: %s experts: %ld top_k: %ld nodes: %d%s; a barrier before each iteration, outside "
        "of its time\n#\n",
        options.routing.traffic.c_str(), static_cast<long>(options.routing.experts),
        static_cast<long>(options.routing.top_k), world.nodes(),
        options.ranks_per_node > 0 ? " (simulated)" : "");
    std::printf("# Using devices\n");
    for (std::size_t i = 0; i < world.ranks.size(); ++i) {
        const BenchRank& rank = world.ranks[i];
        std::printf("#  Rank %2zu Group  0 Pid %6ld on %10s device %2d [cpu] %s\n", i,
                    static_cast<long>(rank.process), rank.host.c_str(), rank.local_rank,
                    rank.processor.c_str());
    }
    const auto titles = [](const char* size, const char* count, const char* type, const char* redop,
                           const char* root, const char* time, const char* algbw, const char* busbw,
                           const char* wrong) {
        std::printf("# %10s  %12s  %8s  %6s  %6s", size, count, type, redop, root);
        for (int placement = 0; placement < 2; ++placement)
            std::printf("  %7s  %6s  %6s  %6s", time, algbw, busbw, wrong);
    };
    std::printf("#\n# %10s  %12s  %8s  %6s  %6s  %23s%9s%26s%7s  %25s  %s\n", "", "", "", "", "",
                "out-of-place", "", "in-place", "", "slowest rank", "    mixture of experts");
    titles("size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong");
    std::printf("  %7s  %7s  %7s  %7s  %3s  %6s  %12s  %12s\n", "p50", "p95", "p99", "tokens", "k", "imbal",
                "same-node", "cross-node");
    titles("(B)", "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "");
    std::printf("  %7s  %7s  %7s  %7s  %3s  %6s  %12s  %12s\n", "(us)", "(us)", "(us)", "", "", "", "(B)",
                "(B)");
}

void print_nccl_line(const ExchangeLine& line, DType dtype) {
    const std::string wrong = line.wrong ? fmt::format("{:6g}", static_cast<double>(*line.wrong)) : "   N/A";
    std::string text = fmt::format("{:12}  {:12}  {:>8}  {:>6}  {:6}", line.size, line.count,
                                   nccl_type_name(dtype), "none", -1);
    text += fmt::format("  {}  {}  {}  {}", fitted(line.time_us, 7), fitted(line.algbw, 6),
                        fitted(line.busbw, 6), wrong);
    text += fmt::format("  {:>7}  {:>6}  {:>6}  {:>6}", "N/A", "N/A", "N/A", "N/A");
    text += fmt::format("  {}  {}  {}", fitted(line.slowest.p50, 7), fitted(line.slowest.p95, 7),
                        fitted(line.slowest.p99, 7));
    text += line.tokens > 0 ? fmt::format("  {:7g}  {:3}", line.tokens, line.top_k)
                            : fmt::format("  {:>7}  {:>3}", "-", "-");
    text += fmt::format("  {}  {:12}  {:12}", fitted(line.imbalance, 6), line.bytes.same_node,
                        line.bytes.cross_node);
    std::printf("%s\n", text.c_str());
    std::fflush(stdout);
}

i64 wrong_of(const std::vector<ExchangeLine>& lines) {
    i64 wrong = 0;
    for (const ExchangeLine& line : lines) wrong += line.wrong.value_or(0);
    return wrong;
}

namespace {

double mean_of(const std::vector<ExchangeLine>& lines, double ExchangeLine::*value) {
    double sum = 0;
    for (const ExchangeLine& line : lines) sum += line.*value;
    return lines.empty() ? 0 : sum / static_cast<double>(lines.size());
}

const char* verdict(std::optional<double> gate, double value) {
    return !gate ? "" : value >= *gate ? "OK" : "FAILED";
}

}  // namespace

double mean_busbw(const std::vector<ExchangeLine>& lines) {
    return mean_of(lines, &ExchangeLine::busbw);
}

double mean_algbw(const std::vector<ExchangeLine>& lines) {
    return mean_of(lines, &ExchangeLine::algbw);
}

void print_nccl_foot(const std::vector<ExchangeLine>& lines, const BenchGates& gates) {
    const i64 wrong = wrong_of(lines);
    std::printf("# %-20s : %ld %s\n", "Out of bounds values", static_cast<long>(wrong),
                wrong ? "FAILED" : "OK");
    std::printf("# %-20s : %g %s\n#\n", "Avg bus bandwidth", mean_busbw(lines),
                verdict(gates.min_busbw, mean_busbw(lines)));
    std::printf("# Collective test concluded: moesaic bench alltoall\n#\n");
}

std::vector<std::string> failures_of(const std::vector<ExchangeLine>& lines, const BenchGates& gates) {
    std::vector<std::string> failures;
    const auto require = [&](bool good, const std::string& text) {
        if (!good) failures.push_back(text);
    };
    const i64 wrong = wrong_of(lines);
    require(wrong == 0, fmt::format("{} elements are wrong", wrong));
    const double busbw = mean_busbw(lines), algbw = mean_algbw(lines);
    require(!gates.min_busbw || busbw >= *gates.min_busbw,
            fmt::format("bus bandwidth {:.4g} GB/s on average, less than --min-busbw {:g}", busbw,
                        gates.min_busbw.value_or(0)));
    require(!gates.min_algbw || algbw >= *gates.min_algbw,
            fmt::format("bandwidth {:.4g} GB/s on average, less than --min-algbw {:g}", algbw,
                        gates.min_algbw.value_or(0)));
    const auto worst = [&](auto value) { return *std::ranges::max_element(lines, {}, value); };
    if (gates.max_p99_us && !lines.empty()) {
        const ExchangeLine line = worst([](const ExchangeLine& one) { return one.slowest.p99; });
        require(line.slowest.p99 <= *gates.max_p99_us,
                fmt::format("p99 of {} bytes is {:.4g} us, more than --max-p99-us {:g}", line.size,
                            line.slowest.p99, *gates.max_p99_us));
    }
    if (gates.max_imbalance && !lines.empty()) {
        const ExchangeLine line = worst([](const ExchangeLine& one) { return one.imbalance; });
        require(line.imbalance <= *gates.max_imbalance,
                fmt::format("imbalance of {} bytes is {:.4g}, more than --max-imbalance {:g}", line.size,
                            line.imbalance, *gates.max_imbalance));
    }
    return failures;
}

int judge(const char* benchmark, bool speaks, const std::vector<std::string>& failures) {
    for (const std::string& failure : failures) {
        if (speaks) std::fprintf(stderr, "bench %s: %s\n", benchmark, failure.c_str());
    }
    return failures.empty() ? 0 : 3;
}

}  // namespace moesaic
