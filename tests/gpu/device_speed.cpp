// How fast kernels and products are, beside what the same device does at best in the same run: memory against
// a copy on the device, products against one large square product. What each has to do is the roofline's
// (runtime/machine/roofline.h): a row there is a row here.
//
//   device_speed [--json FILE] [--only TEXT] [TOKENS [REPEATS]]
//
// TOKENS (4096) of the DeepSeek-V3-like layer, all else in proportion; REPEATS (20) of each; TEXT: rows whose
// name holds it. The emulator, which tells no time, wants few of all. Operands that fit the device's cache
// are found there, and shares are then above what memory allows.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/metrics/json_line.h"
#include "tests/gpu/speed/speed_bench.h"

namespace moesaic::speed {
namespace {

struct Options {
    i64 tokens = 4096;
    int repeats = 20;
    std::string json, only;
};

class SpeedTable {
  public:
    explicit SpeedTable(const Options& options)
        : bench_(options.repeats), only_(options.only), peaks_(data_sheet_of(bench_.device_name())) {
        if (options.json.empty()) return;
        json_.open(options.json);
        if (!json_) throw Error(fmt::format("{} cannot be written", options.json));
    }

    SpeedBench& bench() { return bench_; }
    [[nodiscard]] bool wants(std::string_view kernel) const {
        return kernel.find(only_) != std::string_view::npos;
    }
    /// What the rows after this are shares of.
    void set_peaks(const GpuPeaks& peaks) { peaks_ = peaks; }

    /// Operations or bytes a second, whichever limits.
    double row(std::string_view shape, const KernelCost& cost, const Seconds& seconds) {
        const KernelTime least = least_time(cost, peaks_);
        const bool computes = least.limit == Limit::compute;
        const double rate = (computes ? cost.flops : cost.memory_bytes) / seconds.median;
        const double share = least.seconds / seconds.median;
        fmt::print("{:<20} {:<36} {:10.1f} us [{:.1f}, {:.1f}] {:9.3f} {:<7} {:6.1f} %\n", shape, cost.name,
                   1e6 * seconds.median, 1e6 * seconds.least, 1e6 * seconds.most, 1e-12 * rate,
                   computes ? "TFLOP/s" : "TB/s", 100 * share);
        if (json_.is_open()) write(shape, cost, seconds, least.limit, share);
        return rate;
    }

    /// Every kernel of the roofline, measured; an exchange wants another GPU.
    void rows(const MoeShape& shape, std::span<const KernelCost> costs,
              std::span<const MeasuredKernel> kernels) {
        for (const KernelCost& cost : costs) {
            if (is_exchange(cost)) continue;
            const auto kernel = std::ranges::find(kernels, cost.name, &MeasuredKernel::name);
            if (kernel == kernels.end()) throw Error(fmt::format("nothing measures '{}'", cost.name));
            if (wants(cost.name)) row(shape.name, cost, kernel->measure(bench_, shape));
        }
    }

  private:
    /// H100's where there is none of this device.
    static GpuPeaks data_sheet_of(const std::string& device) {
        for (const GpuPeaks& gpu : gpu_peaks()) {
            const std::string_view model = gpu.name.substr(0, gpu.name.find(' '));
            if (device.find(model) != std::string::npos) return gpu;
        }
        return gpu_peaks()[0];
    }
    void write(std::string_view shape, const KernelCost& cost, const Seconds& seconds, Limit limit,
               double share) {
        JsonLine line;
        line.field("device", bench_.device_name()).field("shape", shape).field("kernel", cost.name);
        line.field("us", 1e6 * seconds.median).field("least_us", 1e6 * seconds.least);
        line.field("most_us", 1e6 * seconds.most).field("flops", cost.flops);
        line.field("memory_bytes", cost.memory_bytes).field("limit", name_of(limit)).field("share", share);
        json_ << line.text() << std::endl;
    }

    SpeedBench bench_;
    std::string only_;
    std::ofstream json_;
    GpuPeaks peaks_;
};

double copy_rate(SpeedTable& table, i64 elements) {
    SpeedBench& bench = table.bench();
    Tensor from = bench.random({elements}, DType::f32), to = bench.empty({elements}, DType::f32);
    const KernelCost cost{.name = "copy on the device, read and written",
                          .memory_bytes = 8.0 * static_cast<double>(elements)};
    return table.row("", cost, bench.time([&] { bench.backend().copy(bench.stream(), from, to); }));
}

double square_product_rate(SpeedTable& table, i64 n, DType dtype, const char* name) {
    SpeedBench& bench = table.bench();
    Tensor a = bench.random({n, n}, dtype), b = bench.random({n, n}, dtype), c = bench.empty({n, n}, dtype);
    const KernelCost cost = product_cost(name, n, n, n, 1);
    const Seconds seconds =
        bench.time([&] { bench.backend().gemm(bench.stream(), {.a = a, .b = b, .c = c, .trans_b = true}); });
    table.row("", cost, seconds);
    return cost.flops / seconds.median;
}

/// Shares of the device's data sheet; those of the other rows are of these.
GpuPeaks measured_peaks(SpeedTable& table, i64 extent) {
    GpuPeaks peaks{.profile = "measured",
                   .name = "measured",
                   .bf16_flops = 0,
                   .fp32_flops = 0,
                   .fp64_flops = 0,
                   .memory_bytes = 0,
                   .nvlink_bytes = 1,  // which no row here uses
                   .network_bytes = 1,
                   .gpus_per_node = 1,
                   .memory_capacity = 0};
    peaks.memory_bytes = copy_rate(table, 4 * extent * extent);
    peaks.bf16_flops = square_product_rate(table, extent, DType::bf16, "square product, bf16");
    peaks.fp32_flops = square_product_rate(table, extent / 2, DType::f32, "square product, fp32");
    return peaks;
}

/// Groups with 1, 2, 3, ... parts of the rows where `falling` is not set, else with 1, 1/2, 1/3, ... and the
/// last eighth of the groups empty.
std::vector<i64> uneven_groups(i64 rows, i64 groups, bool falling) {
    const i64 used = falling ? groups - groups / 8 : groups;
    std::vector<double> weight(static_cast<std::size_t>(used));
    for (i64 g = 0; g < used; ++g)
        weight[static_cast<std::size_t>(g)] =
            falling ? 1 / static_cast<double>(g + 1) : static_cast<double>(g + 1);
    const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
    std::vector<i64> counts(static_cast<std::size_t>(groups), 0);
    std::ranges::transform(weight, counts.begin(), [&](double part) {
        return static_cast<i64>(static_cast<double>(rows) * part / sum);
    });
    counts.front() += rows - std::accumulate(counts.begin(), counts.end(), i64{0});
    return counts;
}

/// From half of the mean to one and a half, as routers without balance.
std::vector<i64> routed_groups(i64 rows, i64 groups) {
    std::vector<i64> counts;
    for (i64 g = 0; g < groups; ++g)
        counts.push_back(rows * (groups - 1 + 2 * g) / (2 * groups * (groups - 1)));
    counts.back() += rows - std::accumulate(counts.begin(), counts.end(), i64{0});
    return counts;
}

/// Among them the experts of OLMoE (arXiv 2409.02060), 8192 tokens on one GPU.
void grouped_rows(SpeedTable& table, i64 rows, i64 extent) {
    const std::vector<Grouping> groupings{
        {"4 uneven groups", uneven_groups(rows, 4, false), extent, extent},
        {"64 groups", even_groups(rows, 64), extent, extent},
        {"256 groups", even_groups(rows, 256), extent, extent},
        {"64 skewed, 8 empty", uneven_groups(rows, 64, true), extent, extent},
        {"OLMoE gate, up", routed_groups(2 * rows, 64), extent, extent},
        {"OLMoE down", routed_groups(2 * rows, 64), extent, extent / 2},
    };
    for (Grouping grouping : groupings) {
        const auto used = std::ssize(grouping.rows) - std::ranges::count(grouping.rows, 0);
        const i64 all = std::accumulate(grouping.rows.begin(), grouping.rows.end(), i64{0});
        for (const bool one_by_one : {false, true}) {
            grouping.one_by_one = one_by_one;
            const std::string name = one_by_one ? "products one by one" : "grouped product";
            const std::string input_name = name + ", input gradient",
                              weight_name = name + ", weight gradient";
            const auto row = [&](const KernelCost& cost, auto measure) {
                if (table.wants(cost.name)) table.row(grouping.name, cost, measure(table.bench(), grouping));
            };
            row(product_cost(name, all, grouping.n, grouping.k, used), grouped_product);
            row(input_gradient_cost(input_name, all, grouping.n, grouping.k, used), grouped_input_gradient);
            row(weight_gradient_cost(weight_name, all, grouping.n, grouping.k, used, 8),
                grouped_weight_gradient);
        }
    }
}

/// Everything in proportion, in whole vectors.
MoeShape scaled(MoeShape shape, i64 tokens) {
    const auto part = [&](i64 whole, i64 least) {
        return std::max<i64>(least, whole * tokens / 4096 / least * least);
    };
    const i64 local = shape.local_experts();
    shape.tokens = part(shape.tokens, 8);
    shape.width = part(shape.width, 32);
    shape.hidden = part(shape.hidden, 32);
    shape.experts = std::max(part(shape.experts, 8), local);
    shape.expert_parallel = shape.experts / local;
    const i64 queries_per_key = shape.heads / shape.kv_heads;
    shape.heads = part(shape.heads, queries_per_key);
    shape.kv_heads = shape.heads / queries_per_key;
    shape.seq_len = std::min(shape.tokens, part(shape.seq_len, 8));
    shape.vocabulary = part(shape.vocabulary, 32);
    return shape;
}

void run(const Options& options) {
    SpeedTable table(options);
    const auto part = [&](i64 whole) { return std::max<i64>(32, whole * options.tokens / 4096 / 32 * 32); };
    fmt::print(
        "# {}: median of {} [least, most] after a warm-up; shares of the copy and of the products, "
        "and of those the data sheet's\n",
        table.bench().device_name(), options.repeats);
    table.set_peaks(measured_peaks(table, part(8192)));
    for (const MoeShape& published : roofline_shapes()) {
        const MoeShape shape = scaled(published, options.tokens);
        table.rows(shape, moe_layer_costs(shape, 1), forward_kernels());
        table.rows(shape, moe_layer_backward_costs(shape, 1), backward_kernels());
        table.rows(shape, model_costs(shape), model_kernels());
    }
    grouped_rows(table, 8 * options.tokens, part(2048));
}

/// Exits with 2 after a word on what is wrong.
Options parse(int count, char** words) {
    Options options;
    std::vector<std::string> numbers;
    const std::vector<std::string> given(words + 1, words + count);
    bool good = true;
    for (std::size_t i = 0; i < given.size(); ++i) {
        const bool named = given[i] == "--json" || given[i] == "--only";
        if (!named)
            numbers.push_back(given[i]);
        else if (i + 1 < given.size())
            (given[i] == "--json" ? options.json : options.only) = given[i + 1];
        else
            good = false;
        if (named) ++i;
    }
    if (!numbers.empty()) options.tokens = std::atol(numbers[0].c_str());
    if (numbers.size() > 1) options.repeats = std::atoi(numbers[1].c_str());
    if (!good || numbers.size() > 2 || options.tokens < 1 || options.repeats < 1 || options.repeats > 10000) {
        fmt::print(stderr, "usage: {} [--json FILE] [--only TEXT] [TOKENS [REPEATS]]\n", words[0]);
        std::exit(2);
    }
    return options;
}

}  // namespace
}  // namespace moesaic::speed

int main(int count, char** words) {
    try {
        moesaic::speed::run(moesaic::speed::parse(count, words));
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
    return 0;
}
