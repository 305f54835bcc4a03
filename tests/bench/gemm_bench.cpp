// Speed of the CPU products with attention, each beside the peak of one core measured in the same run.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/cpu/attention.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/grouped_gemm.h"

namespace moesaic {
namespace {

std::vector<float> random_values(i64 count, u64 seed) {
    const Philox random(seed, "bench");
    std::vector<float> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.uniform(i)) - 0.5f;
    return values;
}

/// GFLOP/s of one core's fused multiply-adds: the densest tile with strides of 0, so that its operands are
/// always the same few cache lines. Best of several, once per run.
double peak_gflops() {
    static const double peak = [] {
        const GemmKernels<float>& kernels = gemm_kernels<float>();
        PanelProduct<float> tile;
        tile.rows = kernels.row_tile;
        tile.p = 100000;
        tile.columns = tile.c_row_stride = kernels.panel_columns;
        const auto a = random_values(1, 1), b = random_values(tile.columns, 2);
        std::vector<float> c(static_cast<std::size_t>(tile.rows * tile.columns));
        tile.a = {a.data(), 0, 0};
        tile.panel = b.data();
        tile.c = c.data();
        constexpr int kCalls = 3;
        double best = 0;
        for (int round = 0; round < 100; ++round) {
            const auto start = std::chrono::steady_clock::now();
            for (int call = 0; call < kCalls; ++call) kernels.multiply_panel(tile);
            const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
            best = std::max(
                best, 2e-9 * kCalls * static_cast<double>(tile.rows * tile.columns * tile.p) / time.count());
        }
        return best;
    }();
    return peak;
}

void report(benchmark::State& state, double flops) {
    // Rates are inverted seconds per iteration, so the library divides by the time.
    state.counters["GFLOP/s"] =
        benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["of_peak"] =
        benchmark::Counter(flops * 1e-9 / peak_gflops(), benchmark::Counter::kIsIterationInvariantRate);
}

void bench_gemm(benchmark::State& state, bool trans_a, bool trans_b) {
    ThreadPool pool(static_cast<int>(state.range(3)));
    MatrixProduct<float> product;
    product.m = state.range(0), product.n = state.range(1), product.p = state.range(2);
    const auto a = random_values(product.m * product.p, 1), b = random_values(product.n * product.p, 2);
    std::vector<float> c(static_cast<std::size_t>(product.m * product.n));
    product.a = operand(a.data(), trans_a ? product.m : product.p, trans_a);
    product.b = operand(b.data(), trans_b ? product.p : product.n, trans_b);
    product.c = c.data();
    product.c_row_stride = product.n;
    for (auto _ : state) multiply(pool, product);
    report(state, 2.0 * static_cast<double>(product.m * product.n * product.p));
}

void gemm_shapes(benchmark::internal::Benchmark* bench) {
    for (const i64 threads : {1, 2})
        for (const auto& [m, n, p] : {std::array<i64, 3>{17, 512, 512},
                                      {64, 512, 512},
                                      {64, 2048, 512},
                                      {32, 2048, 512},
                                      {256, 512, 512},
                                      {1024, 128, 512},
                                      {1024, 512, 128}})
            bench->Args({m, n, p, threads});
    bench->ArgNames({"m", "n", "p", "threads"})->UseRealTime();
}
BENCHMARK_CAPTURE(bench_gemm, nn, false, false)->Apply(gemm_shapes);
BENCHMARK_CAPTURE(bench_gemm, nt, false, true)->Apply(gemm_shapes);
BENCHMARK_CAPTURE(bench_gemm, tn, true, false)->Apply(gemm_shapes);

/// Eight experts with 256 rows each or with skewed rows: gate and up projection (H=128, 2F=512).
const std::vector<i64> kEven(8, 256), kSkewed{1, 1200, 0, 600, 17, 200, 30, 0};

void bench_grouped(benchmark::State& state, const std::vector<i64>& rows, bool weight_grad) {
    ThreadPool pool(static_cast<int>(state.range(0)));
    constexpr i64 kWidth = 128, kColumns = 512;
    const i64 groups = static_cast<i64>(rows.size()),
              total = std::accumulate(rows.begin(), rows.end(), i64{0});
    const auto x = random_values(total * kWidth, 1);
    const auto weight = random_values(groups * kWidth * kColumns, 2);
    auto y = random_values(total * kColumns, 3);
    std::vector<double> sums(weight.size());
    for (auto _ : state) {
        if (weight_grad)
            accumulate_weight_grads(pool, GroupedWeightGrad<float>{rows, groups, kWidth, kColumns, x.data(),
                                                                   y.data(), sums.data()});
        else
            multiply_groups(pool,
                            GroupedProduct<float>{rows, kColumns, kWidth, x.data(), weight.data(), y.data()});
    }
    report(state, 2.0 * static_cast<double>(total * kWidth * kColumns));
}
BENCHMARK_CAPTURE(bench_grouped, even, kEven, false)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK_CAPTURE(bench_grouped, skewed, kSkewed, false)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK_CAPTURE(bench_grouped, even_weight_grad, kEven, true)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK_CAPTURE(bench_grouped, skewed_weight_grad, kSkewed, true)->Arg(1)->Arg(2)->UseRealTime();

/// Four sequences of 256 rows with four heads of 32; flops counted for the causal half only.
void bench_attention(benchmark::State& state, bool backward) {
    ThreadPool pool(static_cast<int>(state.range(0)));
    constexpr AttentionShape kShape{4 * 256, 4, 4, 32, 256};
    constexpr i64 kElements = kShape.rows * kShape.heads * kShape.head_dim;
    const auto q = random_values(kElements, 1), k = random_values(kElements, 2),
               v = random_values(kElements, 3);
    const auto d_out = random_values(kElements, 4);
    auto out = q, log_sum_exp = random_values(kShape.heads * kShape.rows, 5), dq = q, dk = k, dv = v;
    const SequenceAttention<float> forward{kShape,   q.data(),   k.data(),
                                           v.data(), out.data(), log_sum_exp.data()};
    sequence_attention(pool, forward);
    for (auto _ : state) {
        if (backward)
            sequence_attention_backward(
                pool, SequenceAttentionGrad<float>{kShape, q.data(), k.data(), v.data(), out.data(),
                                                   log_sum_exp.data(), d_out.data(), dq.data(), dk.data(),
                                                   dv.data()});
        else
            sequence_attention(pool, forward);
    }
    report(state, (backward ? 10.0 : 4.0) * static_cast<double>(kElements) * (kShape.seq_len + 1) / 2);
}
BENCHMARK_CAPTURE(bench_attention, forward, false)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK_CAPTURE(bench_attention, backward, true)->Arg(1)->Arg(2)->UseRealTime();

}  // namespace
}  // namespace moesaic
