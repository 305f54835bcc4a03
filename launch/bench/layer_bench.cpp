// moesaic bench layer: forward and backward of one MoE layer, as a share of what the machine can compute.
#include <algorithm>
#include <cstdio>

#include "comm/traffic/traffic.h"
#include "launch/bench/element_access.h"
#include "launch/bench/layer_oracle.h"
#include "launch/bench/measurement.h"
#include "launch/device.h"
#include "launch/ranks.h"
#include "layers/moe_layer.h"
#include "runtime/base/build_info.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

struct LayerTimes {
    std::vector<double> all_us, forward_us, backward_us;  ///< the slowest rank's, one per iteration
};

/// One rank's layer with its data.
class LayerBench {
  public:
    LayerBench(const LayerOptions& options, Communicator& world)
        : problem_(options, world.size()),
          threads_(bench_threads(options, world.topology().ranks_per_node)),
          world_(world),
          config_(config_of(options)),
          backend_(make_device_backend(config_, world, StreamMode::inline_execution, runtime_of(threads_))),
          compute_(backend_->make_stream("compute")),
          exchange_(backend_->make_stream("exchange")),
          device_world_(make_device_world(config_, *backend_, world)),
          mesh_(device_world_ ? *device_world_ : world,
                {.expert = choose_expert_parallel(static_cast<int>(options.routing.experts), world.size(),
                                                  world.topology().ranks_per_node)},
                static_cast<int>(options.routing.experts)),
          context_{*backend_, *compute_, *exchange_, mesh_, Phase::train, 1},
          store_(*backend_, bench_dtype(options)),
          row_exchange_(make_exchange(problem_.spec(), mesh_, store_.dtype())),
          layer_(problem_.spec(), 0, mesh_, *row_exchange_, store_) {
        store_.end_segment();
        store_.keep_packed_copies();
        if (world.size() == 1 && backend_->adds_to_gradients()) store_.sum_once();  // as a step would
        store_.allocate(*compute_, kBenchSeed);
        compute_->synchronize();  // before the host writes
        set_router();
        store_.pack(*compute_);
        x_ = token_rows(&LayerProblem::x);
        dy_ = token_rows(&LayerProblem::dy);
    }

    [[nodiscard]] int threads() const { return threads_; }
    [[nodiscard]] std::string_view device() const { return backend_->name(); }
    /// Of as many operations as the layer of a rank has.
    [[nodiscard]] PeakSamples peak(double flops) {
        return {*backend_, *compute_, threads_, store_.dtype(), flops};
    }

    /// Collective over the world. Gradients are zeroed outside of the time, folded inside.
    void iterate(LayerTimes* times) {
        store_.zero_gradients(*compute_);
        compute_->synchronize();
        world_.barrier({"iteration"});
        Stopwatch watch;
        MoELayer::Saved saved;
        y_ = layer_.forward(context_, {x_, 1}, saved);
        compute_->synchronize();
        const double forward = watch.lap();
        dx_ = layer_.backward(context_, {x_, 1}, dy_, saved);
        store_.fold_segment(*compute_, 0);
        compute_->synchronize();
        const double backward = watch.lap();
        double slowest[] = {forward + backward, forward, backward};
        world_.all_reduce(*exchange_, view_of(slowest, {3}), ReduceOp::max, {"slowest rank"});
        exchange_->synchronize();
        if (!times) return;
        times->all_us.push_back(1e6 * slowest[0]);
        times->forward_us.push_back(1e6 * slowest[1]);
        times->backward_us.push_back(1e6 * slowest[2]);
    }

    /// Collective over the world. Of all ranks' checked values of the last iteration, in which `planted`
    /// values of rank 0's first token were changed.
    i64 count_wrong_values(i64 planted) {
        if (world_.rank() == 0) {
            for (i64 i = 0; i < std::min(planted, y_.cols()); ++i)
                store_element(y_, i, 1 + 2 * load_element(y_, i));
        }
        i64 wrong = count_wrong(problem_, mesh_, {y_, dx_, store_});
        world_.all_reduce(*exchange_, view_of(&wrong, {1}), ReduceOp::sum, {"wrong values"});
        exchange_->synchronize();
        return wrong;
    }

  private:
    static Config config_of(const LayerOptions& options) {
        Config config;
        config.run.device = options.device;
        return config;
    }
    static RuntimeOptions runtime_of(int threads) {
        RuntimeOptions runtime;
        runtime.threads = threads;
        return runtime;
    }
    Tensor token_rows(double (LayerProblem::*value)(i64, i64) const) {
        Tensor rows = backend_->allocate({problem_.tokens_of_rank(), problem_.spec().width}, store_.dtype());
        const i64 first = world_.rank() * problem_.tokens_of_rank(), width = rows.cols();
        for (i64 i = 0; i < rows.elements(); ++i)
            store_element(rows, i, (problem_.*value)(first + i / width, i % width));
        return rows;
    }
    void set_router() {
        for (Parameter& parameter : store_.parameters()) {
            if (parameter.placement == Placement::expert) continue;
            for (i64 i = 0; i < parameter.value.elements(); ++i) {
                const i64 width = parameter.value.cols();
                const double value = problem_.router_weight(i / width, i % width);
                store_element(parameter.value, i, value);
            }
        }
    }

    LayerProblem problem_;
    int threads_;
    Communicator& world_;
    Config config_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Stream> compute_, exchange_;
    std::unique_ptr<Communicator> device_world_;  // over the same ranks, where one moves device memory
    Mesh mesh_;
    StepContext context_;
    ParameterStore store_;
    std::unique_ptr<Exchange> row_exchange_;
    MoELayer layer_;
    Tensor x_, dy_, y_, dx_;
};

/// Sizes that the text of limits.md and the acceptance gate use.
LayerOptions with_default_sizes(LayerOptions options) {
    if (options.routing.tokens == 0) options.routing.tokens = 4096;
    if (options.width == 0) options.width = 512;
    if (options.hidden == 0) options.hidden = 2048;
    return options;
}

/// Throws UserError with all mistakes.
void check_layer_options(const LayerOptions& options) {
    const RoutingOptions& routing = options.routing;
    OptionMistakes mistakes;
    check_dtype(options, mistakes);
    mistakes.require(options.check || options.faults.wrong_elements == 0,
                     "--plant-fault: is found by the check alone; without --check 0");
    mistakes.require(options.device == "cpu" || options.device == "cuda" || options.device == "auto",
                     fmt::format("--device: '{}' is none; one of cpu, cuda, auto", options.device));
    std::vector<std::string> traffic;
    (void)parse_traffic(routing.traffic, traffic);
    for (const std::string& mistake : traffic) mistakes.add("--traffic: " + mistake);
    mistakes.require(
        routing.top_k <= routing.experts,
        fmt::format("--top-k: {} of {} experts; at most --experts", routing.top_k, routing.experts));
    mistakes.require(options.width >= routing.experts,
                     fmt::format("--width: {} is less than --experts {}; the benchmark's router reads one "
                                 "column per expert",
                                 options.width, routing.experts));
    mistakes.throw_if_any();
}

struct LayerReport {
    LayerOptions options;
    std::string device;
    int ranks = 1, threads = 1;
    LayerTimes times;
    double peak_gflops = 0;
    std::optional<i64> wrong;  ///< none: nothing was checked

    /// Three matrices per choice, two flops per weight and row, once forward and twice backward; the router,
    /// the exchange and all element-wise work are overhead.
    [[nodiscard]] double flops() const {
        return 18.0 * static_cast<double>(ranks * options.routing.tokens * options.routing.top_k) *
               static_cast<double>(options.width * options.hidden);
    }
    [[nodiscard]] double gflops() const { return 1e-3 * flops() / quantile(times.all_us, 0.5); }
    [[nodiscard]] double peak_fraction() const { return gflops() / peak_gflops; }
};

void print_json(const LayerReport& report) {
    JsonLine line;
    line.field("bench", "layer")
        .field("device", report.device)
        .field("tokens", report.options.routing.tokens)
        .field("width", report.options.width);
    line.field("hidden", report.options.hidden).field("experts", report.options.routing.experts);
    line.field("top_k", report.options.routing.top_k)
        .field("ranks", report.ranks)
        .field("threads", report.threads);
    line.field("dtype", report.options.dtype).field("time_us", summary_of(report.times.all_us));
    line.field("forward_us", quantile(report.times.forward_us, 0.5));
    line.field("backward_us", quantile(report.times.backward_us, 0.5)).field("gflops", report.gflops());
    line.field("peak_gflops", report.peak_gflops).field("peak_fraction", report.peak_fraction());
    line.field("wrong", report.wrong);
    std::printf("%s\n", line.text().c_str());
}

void print_table(const LayerReport& report) {
    const LayerOptions& o = report.options;
    const TimeSummary time = summary_of(report.times.all_us);
    std::printf("# moesaic %s (%s) bench layer: forward and backward of one MoE layer\n", kVersion, kCommit);
    std::printf(
        "# %s: %d ranks x %d threads  %s  traffic %s  warm-up %ld  iterations %ld  weights packed "
        "beforehand\n",
        report.device.c_str(), report.ranks, report.threads, o.dtype.c_str(), o.routing.traffic.c_str(),
        static_cast<long>(o.warmup), static_cast<long>(o.iterations));
    std::printf("# flops counted: 18 x slots x width x hidden; peak: %s measured in this run\n#\n",
                report.device == "cpu" ? "fused multiply-adds" : "a square product");
    std::printf("#%7s %7s %7s %7s %5s %10s %10s %10s %10s %10s %10s %9s %9s %6s %6s\n", "tokens", "width",
                "hidden", "experts", "top_k", "min", "p50", "p95", "p99", "forward", "backward", "rate",
                "peak", "share", "wrong");
    std::printf("#%7s %7s %7s %7s %5s %10s %10s %10s %10s %10s %10s %9s %9s %6s %6s\n", "(rank)", "", "", "",
                "", "(us)", "(us)", "(us)", "(us)", "(us)", "(us)", "(GF/s)", "(GF/s)", "(%)", "");
    std::printf(" %7ld %7ld %7ld %7ld %5ld %10.0f %10.0f %10.0f %10.0f %10.0f %10.0f %9.1f %9.1f %6.1f %6s\n",
                static_cast<long>(o.routing.tokens), static_cast<long>(o.width), static_cast<long>(o.hidden),
                static_cast<long>(o.routing.experts), static_cast<long>(o.routing.top_k), time.min, time.p50,
                time.p95, time.p99, quantile(report.times.forward_us, 0.5),
                quantile(report.times.backward_us, 0.5), report.gflops(), report.peak_gflops,
                100 * report.peak_fraction(), report.wrong ? std::to_string(*report.wrong).c_str() : "N/A");
}

/// Collective over `world`.
int run_rank(const LayerOptions& options, Communicator& world) {
    LayerBench bench(options, world);
    LayerReport report;
    report.options = options;
    report.device = bench.device();
    report.ranks = world.size();
    report.threads = bench.threads();
    PeakSamples peak = bench.peak(report.flops() / world.size());
    for (i64 i = 0; i < options.warmup; ++i) bench.iterate(nullptr);
    for (i64 i = 0; i < options.iterations; ++i) {
        peak.take(world);
        bench.iterate(&report.times);
    }
    peak.take(world);
    if (options.check) report.wrong = bench.count_wrong_values(options.faults.wrong_elements);
    report.peak_gflops = peak.sum_over(world);
    const bool fast = !options.min_peak_fraction || report.peak_fraction() >= *options.min_peak_fraction;
    if (world.rank() == 0) {
        if (options.json) {
            print_json(report);
        } else {
            print_table(report);
        }
        if (!fast) {
            std::fprintf(stderr, "bench layer: %.3f of the peak, less than --min-peak-fraction %g\n",
                         report.peak_fraction(), *options.min_peak_fraction);
        }
        if (report.wrong.value_or(0) > 0)
            std::fprintf(stderr, "bench layer: %ld values are wrong\n", static_cast<long>(*report.wrong));
    }
    return fast && report.wrong.value_or(0) == 0 ? 0 : 3;
}

}  // namespace

int bench_layer(const LayerOptions& given) {
    const LayerOptions options = with_default_sizes(given);
    check_layer_options(options);
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return run_rank(options, world); });
}

}  // namespace moesaic
