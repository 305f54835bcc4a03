// Is the measured peak honest? oneDNN's matrix products with packed weights must not be faster than it.
// Prints one line per type, number of threads and shape; exit code 3 when a product beats the peak.
//   build/release/peak_against_onednn [THREADS ...]     default: 1 and all cores
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <thread>
#include <unordered_map>
#include <vector>

#include "runtime/cpu/peak.h"

namespace moesaic {
namespace {

// Both are the best of many short runs, and the clock moves by about this much between them.
constexpr double kTolerance = 0.02;
constexpr int kRounds = 7;

struct Product {
    i64 m, n, k;
};

using Type = dnnl::memory::data_type;

/// C[m,n] = A[m,k] B[k,n] with formats of oneDNN's own choice, packed beforehand.
class OneDnnProduct {
  public:
    OneDnnProduct(const Product& shape, Type type)
        : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), shape_(shape) {
        const auto any = [type](i64 rows, i64 columns) {
            return dnnl::memory::desc({rows, columns}, type, dnnl::memory::format_tag::any);
        };
        const dnnl::matmul::desc what(any(shape.m, shape.k), any(shape.k, shape.n), any(shape.m, shape.n));
        const dnnl::matmul::primitive_desc how(what, engine_);
        name_ = how.impl_info_str();
        product_ = dnnl::matmul(how);
        arguments_ = {{DNNL_ARG_SRC, filled(how.src_desc(), type)},
                      {DNNL_ARG_WEIGHTS, filled(how.weights_desc(), type)},
                      {DNNL_ARG_DST, dnnl::memory(how.dst_desc(), engine_)}};
    }

    /// GFLOP/s of the best call within about 20 ms.
    double best_gflops() {
        using Clock = std::chrono::steady_clock;
        const auto start = Clock::now();
        double best = 1e9;
        for (auto now = start; now - start < std::chrono::milliseconds(20);) {
            product_.execute(stream_, arguments_);
            stream_.wait();
            const auto end = Clock::now();
            best = std::min(best, std::chrono::duration<double>(end - now).count());
            now = end;
        }
        return 2e-9 * static_cast<double>(shape_.m * shape_.n * shape_.k) / best;
    }
    [[nodiscard]] const std::string& name() const { return name_; }

  private:
    /// Values around one in the packed format; the padding, if any, is zero.
    dnnl::memory filled(const dnnl::memory::desc& packed, Type type) {
        const auto dims = packed.dims();
        std::vector<float> values(static_cast<std::size_t>(dims[0] * dims[1]));
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) * 0.1F - 0.8F;
        const auto rows = dnnl::memory::format_tag::ab;
        dnnl::memory plain({dims, Type::f32, rows}, engine_, values.data());
        dnnl::memory typed({dims, type, rows}, engine_), result(packed, engine_);
        dnnl::reorder(plain, typed).execute(stream_, plain, typed);
        dnnl::reorder(typed, result).execute(stream_, typed, result);
        stream_.wait();
        return result;
    }

    dnnl::engine engine_;
    dnnl::stream stream_;
    Product shape_;
    std::string name_;
    dnnl::matmul product_;
    std::unordered_map<int, dnnl::memory> arguments_;
};

/// Whether the peak held, for one type and number of threads. Peak and products take turns, so that both see
/// the same clock and neighbours.
bool peak_holds(PeakType peak_type, Type type, const char* type_name, int threads) {
    omp_set_num_threads(threads);
    const std::vector<Product> shapes{
        {256, 512, 512}, {1024, 512, 512}, {1024, 512, 2048}, {2048, 2048, 2048}};
    std::vector<OneDnnProduct> products;
    for (const Product& shape : shapes) products.emplace_back(shape, type);
    std::vector<double> best(shapes.size());
    Peak peak;
    for (int round = 0; round < kRounds; ++round) {
        const Peak measured = measure_peak(peak_type, threads);
        if (measured.best > peak.best) peak = measured;
        for (std::size_t i = 0; i < shapes.size(); ++i)
            best[i] = std::max(best[i], products[i].best_gflops());
    }
    bool holds = true;
    std::printf("%-4s %2d threads  peak %8.1f GFLOP/s  %s%s\n", type_name, threads, peak.best * 1e-9,
                peak.loop.c_str(), peak.assembly ? " (assembly)" : "");
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const double share = best[i] / (peak.best * 1e-9);
        const bool beaten = share > 1 + kTolerance;
        holds = holds && !beaten;
        std::printf("  %5ld x %5ld x %5ld  %8.1f GFLOP/s  %5.1f %% of peak  %s%s\n", shapes[i].m, shapes[i].n,
                    shapes[i].k, best[i], 100 * share, products[i].name().c_str(),
                    beaten ? "  BEATS THE PEAK" : "");
    }
    return holds;
}

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) {
    using namespace moesaic;
    std::vector<int> counts;
    for (int i = 1; i < argc; ++i) counts.push_back(std::max(1, std::atoi(argv[i])));
    if (counts.empty()) counts = {1, std::max(1, static_cast<int>(std::thread::hardware_concurrency()))};
    bool holds = true;
    for (const int threads : counts) {
        holds = peak_holds(PeakType::f32, Type::f32, "f32", threads) && holds;
        if (assembly_peak_loops(PeakType::bf16).empty()) continue;  // oneDNN may have no bf16 here either
        holds = peak_holds(PeakType::bf16, Type::bf16, "bf16", threads) && holds;
    }
    std::printf("%s\n", holds ? "the peak holds" : "the peak is too low: a product beats it");
    return holds ? 0 : 3;
}
