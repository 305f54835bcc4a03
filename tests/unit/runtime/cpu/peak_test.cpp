// The peak against what the same machine does otherwise: products and plain C++ must not beat it.
#include "runtime/cpu/peak.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <iterator>

#include "runtime/cpu/gemm.h"

namespace moesaic {
namespace {

double gflops_of(const PeakLoop& loop) {
    double best = 0;
    for (int round = 0; round < 30; ++round) {
        constexpr i64 kRounds = 20000;
        const auto start = std::chrono::steady_clock::now();
        loop.run(kRounds);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        best = std::max(best, 1e-9 * loop.flops_per_round * kRounds / time.count());
    }
    return best;
}

/// Of the densest tile of our own products, whose operands stay in the first cache.
double gflops_of_a_tile() {
    const GemmKernels<float>& kernels = gemm_kernels<float>();
    PanelProduct<float> tile;
    tile.rows = kernels.row_tile;
    tile.p = 20000;
    tile.columns = tile.c_row_stride = kernels.panel_columns;
    std::vector<float> a(1, 0.5F), b(static_cast<std::size_t>(tile.columns), 0.25F);
    std::vector<float> c(static_cast<std::size_t>(tile.rows * tile.columns));
    tile.a = {a.data(), 0, 0};
    tile.panel = b.data();
    tile.c = c.data();
    double best = 0;
    for (int round = 0; round < 30; ++round) {
        const auto start = std::chrono::steady_clock::now();
        kernels.multiply_panel(tile);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        best = std::max(best, 2e-9 * static_cast<double>(tile.rows * tile.columns * tile.p) / time.count());
    }
    return best;
}

bool cpu_says(const char* feature) {
    std::ifstream stream("/proc/cpuinfo");
    const std::string text((std::istreambuf_iterator<char>(stream)), {});
    return text.find(std::string(" ") + feature + " ") != std::string::npos;
}

TEST(Peak, OurOwnTileDoesNotBeatIt) {
    // Wide enough for neighbours and a moving clock; a loop that misses half the machine still shows.
    EXPECT_GT(1e-9 * measure_peak_flops(1, false), 0.75 * gflops_of_a_tile());
}

TEST(Peak, AssemblyIsNoSlowerThanCompiledLoops) {
    for (const PeakType type : {PeakType::f32, PeakType::f64}) {
        const auto loops = assembly_peak_loops(type);
        if (loops.empty()) GTEST_SKIP() << "no assembly for this CPU";
        EXPECT_GT(gflops_of(loops.front()), 0.75 * gflops_of(portable_peak_loop(type)));
    }
}

TEST(Peak, EveryLoopOfThisCpuRuns) {
    for (const PeakType type : {PeakType::f32, PeakType::f64, PeakType::bf16}) {
        for (const Peak& peak : measure_peaks(type, 2, 3)) {
            SCOPED_TRACE(peak.loop);
            EXPECT_GT(peak.best, 1e8);  // flops per second: any processor of this century
            EXPECT_LT(peak.best, 1e14);
            EXPECT_LE(peak.median, peak.best);
        }
    }
    EXPECT_EQ(assembly_peak_loops(PeakType::f32).empty(), !(cpu_says("avx2") && cpu_says("fma")));
}

TEST(Peak, Bf16IsAtLeastF32) {
    // Widened products are always possible, so the peak of bf16 never lies below.
    EXPECT_GT(measure_bf16_peak_flops(1), 0.75 * measure_peak_flops(1, false));
    for (const PeakLoop& loop : assembly_peak_loops(PeakType::bf16)) EXPECT_TRUE(loop.assembly);
}

}  // namespace
}  // namespace moesaic
