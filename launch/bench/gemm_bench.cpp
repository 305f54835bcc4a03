#include "launch/bench/gemm_bench.h"

#include <algorithm>
#include <cstdio>

#include "launch/bench/gemm_problem.h"
#include "launch/bench/measurement.h"
#include "launch/ranks.h"
#include "runtime/base/build_info.h"
#include "runtime/cpu/onednn.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

const std::vector<std::string> kLayouts{"NN", "NT", "TN"};

struct GemmShape {
    i64 groups, m, n, k;
};

/// Products of a transformer of width 512, one that fills the caches, and an expert layer's three.
constexpr GemmShape kTable[] = {{0, 17, 512, 512},    {0, 64, 512, 512},     {0, 256, 512, 512},
                                {0, 1024, 512, 512},  {0, 256, 2048, 512},   {0, 1024, 2048, 512},
                                {0, 1024, 512, 2048}, {0, 2048, 2048, 2048}, {8, 1024, 2048, 512},
                                {8, 1024, 512, 2048}, {64, 64, 2048, 512}};

std::vector<GemmShape> shapes_of(const GemmOptions& options) {
    if (options.m.empty() && options.n.empty() && options.k.empty() && options.groups.empty())
        return {std::begin(kTable), std::end(kTable)};
    const auto list = [](const std::vector<i64>& given, i64 usual) {
        return given.empty() ? std::vector<i64>{usual} : given;
    };
    std::vector<GemmShape> shapes;
    for (const i64 groups : list(options.groups, 0))
        for (const i64 m : list(options.m, 1024))
            for (const i64 n : list(options.n, 512))
                for (const i64 k : list(options.k, 512)) shapes.push_back({groups, m, n, k});
    return shapes;
}

struct GemmReport {
    GemmSize size;
    int ranks = 1, threads = 1;
    std::string dtype;
    std::vector<double> times_us;    ///< the slowest rank's
    std::vector<double> against_us;  ///< the same of the other library, in the same iterations, or empty
    double flops = 0;                ///< of all ranks
    double peak_gflops = 0;          ///< of all ranks
    i64 wrong = 0;                   ///< ours and the other's

    [[nodiscard]] double gflops() const { return 1e-3 * flops / quantile(times_us, 0.5); }
    [[nodiscard]] double peak_fraction() const { return gflops() / peak_gflops; }
    [[nodiscard]] double against_gflops() const { return 1e-3 * flops / quantile(against_us, 0.5); }
    /// How many times as fast as the other: the median over iterations, whose two samples met the same
    /// neighbours.
    [[nodiscard]] double ratio() const {
        std::vector<double> ratios;
        for (std::size_t i = 0; i < against_us.size(); ++i) ratios.push_back(against_us[i] / times_us[i]);
        return quantile(ratios, 0.5);
    }
};

// Threads and caches are as in a training step when products follow each other: a sample is as many as take
// about this long.
constexpr double kSampleSeconds = 2e-3;

/// One library's products of a size, in samples of kSampleSeconds.
class GemmSampler {
  public:
    /// Collective over `world`: all ranks' samples are of as many products.
    GemmSampler(std::unique_ptr<Backend> backend, const GemmSize& size, DType dtype, Communicator& world)
        : backend_(std::move(backend)),
          stream_(backend_->make_stream("compute")),
          problem_(*backend_, *stream_, size, dtype) {
        constexpr double kMost = 1000;
        problem_.run();
        stream_->synchronize();
        Stopwatch watch;
        problem_.run();
        stream_->synchronize();
        double wanted = std::clamp(kSampleSeconds / watch.lap(), 1.0, kMost);
        world.all_reduce(*stream_, view_of(&wanted, {1}), ReduceOp::max, {"products of a sample"});
        stream_->synchronize();
        products_ = static_cast<i64>(wanted);
    }

    /// Seconds of one product, the slowest rank's, when another has just ended. Collective over `world`.
    [[nodiscard]] double sample(Communicator& world) {
        problem_.run();  // the peak was measured for milliseconds: the caches and the clock are its
        stream_->synchronize();
        world.barrier({"iteration"});
        Stopwatch watch;
        for (i64 product = 0; product < products_; ++product) problem_.run();
        stream_->synchronize();
        double slowest = watch.lap() / static_cast<double>(products_);
        world.all_reduce(*stream_, view_of(&slowest, {1}), ReduceOp::max, {"slowest rank"});
        stream_->synchronize();
        return slowest;
    }

    [[nodiscard]] double flops() const { return problem_.flops(); }
    /// Of all ranks; to be called once. Collective over `world`.
    [[nodiscard]] i64 wrong(Communicator& world) {
        i64 wrong = problem_.count_wrong();
        world.all_reduce(*stream_, view_of(&wrong, {1}), ReduceOp::sum, {"wrong values"});
        stream_->synchronize();
        return wrong;
    }

  private:
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Stream> stream_;
    GemmProblem problem_;
    i64 products_ = 1;
};

/// Collective over `world`.
GemmReport measure(const GemmOptions& options, const GemmSize& size, Communicator& world, int threads) {
    GemmSampler ours(make_cpu_backend(threads), size, bench_dtype(options), world);
    std::optional<GemmSampler> other;
    if (!options.against.empty())
        other.emplace(make_cpu_backend_on(*onednn_library().library, threads), size, DType::f32, world);
    PeakSamples peak(threads, bench_dtype(options));
    GemmReport report{size, world.size(), threads, options.dtype, {}, {}, ours.flops() * world.size(), 0, 0};
    for (i64 i = 0; i < options.warmup + options.iterations; ++i) {
        if (i >= options.warmup) peak.take(world);
        const double mine = ours.sample(world), others = other ? other->sample(world) : 0;
        if (i < options.warmup) continue;
        report.times_us.push_back(1e6 * mine);
        if (other) report.against_us.push_back(1e6 * others);
    }
    report.peak_gflops = peak.sum_over(world);
    report.wrong = ours.wrong(world) + (other ? other->wrong(world) : 0);
    return report;
}

void print_json(const GemmReport& report) {
    JsonLine line;
    line.field("bench", "gemm").field("layout", report.size.layout).field("groups", report.size.groups);
    line.field("m", report.size.m).field("n", report.size.n).field("k", report.size.k);
    line.field("packed", report.size.packed).field("ranks", report.ranks).field("threads", report.threads);
    line.field("dtype", report.dtype).field("time_us", summary_of(report.times_us));
    line.field("gflops", report.gflops()).field("peak_gflops", report.peak_gflops);
    line.field("peak_fraction", report.peak_fraction()).field("wrong", report.wrong);
    if (!report.against_us.empty()) {
        line.field("against", onednn_library().library->name)
            .field("against_us", summary_of(report.against_us));
        line.field("against_gflops", report.against_gflops()).field("ratio", report.ratio());
    }
    std::printf("%s\n", line.text().c_str());
}

void print_head(const GemmOptions& options, int ranks, int threads) {
    std::printf("# moesaic %s (%s) bench gemm: c [m,n] = op(a) op(b) over k\n", kVersion, kCommit);
    std::printf("# %d ranks x %d threads  %s  warm-up %ld  iterations %ld%s\n", ranks, threads,
                options.dtype.c_str(), static_cast<long>(options.warmup),
                static_cast<long>(options.iterations),
                bench_dtype(options) == DType::bf16 ? "  bf16 is stored, f32 is computed" : "");
    std::printf(
        "# NN: b [k,n]; NT: b [n,k], y = x W'; TN: a [k,m], a gradient of weights (grouped: added in f64)\n"
        "# groups: products with b of their own and uneven rows, m (TN: k) is their mean; packed: b "
        "beforehand\n"
        "# peak: fused multiply-adds measured in this run; times: per product, products back to back for "
        "%g ms\n",
        1e3 * kSampleSeconds);
    const bool against = !options.against.empty();
    if (against) {
        std::printf(
            "# other: dnnl_sgemm of %s in turn, which packs in the call; x: the median of its time over "
            "ours\n",
            onednn_library().library->name.c_str());
    }
    std::printf("#%6s %6s %7s %7s %7s %6s %10s %10s %10s %10s %9s %9s %6s %6s%s\n", "layout", "groups", "m",
                "n", "k", "packed", "min", "p50", "p95", "p99", "rate", "peak", "share", "wrong",
                against ? "     other      x" : "");
    std::printf("#%6s %6s %7s %7s %7s %6s %10s %10s %10s %10s %9s %9s %6s %6s%s\n", "", "", "", "", "", "",
                "(us)", "(us)", "(us)", "(us)", "(GF/s)", "(GF/s)", "(%)", "", against ? "    (GF/s)" : "");
}

void print_line(const GemmReport& report) {
    const GemmSize& size = report.size;
    const TimeSummary time = summary_of(report.times_us);
    std::printf(" %6s %6ld %7ld %7ld %7ld %6s %10.1f %10.1f %10.1f %10.1f %9.1f %9.1f %6.1f %6ld",
                size.layout.c_str(), static_cast<long>(size.groups), static_cast<long>(size.m),
                static_cast<long>(size.n), static_cast<long>(size.k), size.packed ? "yes" : "no", time.min,
                time.p50, time.p95, time.p99, report.gflops(), report.peak_gflops,
                100 * report.peak_fraction(), static_cast<long>(report.wrong));
    if (!report.against_us.empty()) std::printf(" %9.1f %6.2f", report.against_gflops(), report.ratio());
    std::printf("\n");
    std::fflush(stdout);
}

/// Collective over `world`.
int run_rank(const GemmOptions& options, Communicator& world) {
    const int threads = bench_threads(options, world.topology().ranks_per_node);
    const bool speaks = world.rank() == 0;
    if (speaks && !options.json) print_head(options, world.size(), threads);
    double least = 1e9, least_ratio = 1e9;
    i64 wrong = 0;
    for (const GemmSize& size : gemm_sizes(options)) {
        const GemmReport report = measure(options, size, world, threads);
        least = std::min(least, report.peak_fraction());
        least_ratio = std::min(least_ratio, report.ratio());
        wrong += report.wrong;
        if (!speaks) continue;
        if (options.json) {
            print_json(report);
        } else {
            print_line(report);
        }
    }
    const bool fast = !options.min_peak_fraction || least >= *options.min_peak_fraction;
    if (speaks && !fast) {
        std::fprintf(stderr, "bench gemm: %.3f of the peak, less than --min-peak-fraction %g\n", least,
                     *options.min_peak_fraction);
    }
    const bool ahead = !options.min_ratio || least_ratio >= *options.min_ratio;
    if (speaks && !ahead)
        std::fprintf(stderr, "bench gemm: %.3f times as fast as oneDNN, less than --min-ratio %g\n",
                     least_ratio, *options.min_ratio);
    if (speaks && wrong > 0)
        std::fprintf(stderr, "bench gemm: %ld values are wrong\n", static_cast<long>(wrong));
    return fast && ahead && wrong == 0 ? 0 : 3;
}

}  // namespace

void check_gemm_options(const GemmOptions& options) {
    OptionMistakes mistakes;
    check_dtype(options, mistakes);
    mistakes.require(options.packed == "yes" || options.packed == "no" || options.packed == "both",
                     fmt::format("--packed: '{}' is unknown; yes, no or both", options.packed));
    for (const std::string& layout : options.layouts) {
        mistakes.require(std::find(kLayouts.begin(), kLayouts.end(), layout) != kLayouts.end(),
                         fmt::format("--layout: '{}' is unknown; NN, NT or TN", layout));
    }
    mistakes.require(options.against.empty() || options.against == "onednn",
                     fmt::format("--against: '{}' is unknown; onednn", options.against));
    mistakes.require(options.against.empty() || parse_dtype(options.dtype) == DType::f32,
                     fmt::format("--against: oneDNN's product is fp32, not {}", options.dtype));
    mistakes.require(!options.min_ratio || !options.against.empty(),
                     "--min-ratio: against what? --against onednn");
    mistakes.throw_if_any();
    if (options.against == "onednn" && !onednn_library().library)
        mistakes.add("--against onednn: " + onednn_library().problem);
    mistakes.require(!gemm_sizes(options).empty(),
                     "--packed: with --layout TN no operand is kept packed; no or both");
    mistakes.throw_if_any();
}

std::vector<GemmSize> gemm_sizes(const GemmOptions& options) {
    std::vector<GemmSize> sizes;
    for (const auto& [groups, m, n, k] : shapes_of(options)) {
        for (const std::string& layout : options.layouts.empty() ? kLayouts : options.layouts) {
            const bool weight = layout != "TN";
            if (weight && options.packed != "no") sizes.push_back({layout, groups, m, n, k, true});
            if (options.packed != "yes") sizes.push_back({layout, groups, m, n, k, false});
        }
    }
    return sizes;
}

std::vector<i64> uneven_rows(i64 groups, i64 mean) {
    const i64 used = groups > 2 ? groups - 1 : groups, rows = groups * mean;
    double weights = 0;
    for (i64 group = 1; group <= used; ++group) weights += 1 / static_cast<double>(group);
    std::vector<i64> counts(static_cast<std::size_t>(groups), 0);
    i64 left = rows;
    for (i64 group = used; group > 1; --group) {
        const double share = static_cast<double>(rows) / (static_cast<double>(group) * weights);
        counts[static_cast<std::size_t>(group - 1)] = static_cast<i64>(share);
        left -= static_cast<i64>(share);
    }
    if (groups > 0) counts[0] = left;
    return counts;
}

int bench_gemm(const GemmOptions& options) {
    check_gemm_options(options);
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return run_rank(options, world); });
}

}  // namespace moesaic
