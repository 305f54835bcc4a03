// Ours and oneDNN's products with packed weights in turn, in fp32 and bf16, rows of A and C as they stand.
// Prints both shares of the peak (the best of five repetitions before each sample; in brackets of their
// median) and the ratio per shape; exit code 3 when one is below LEAST.
//   GOMP_SPINCOUNT=2000 build/release/packed_against_onednn [THREADS [LEAST]]     default: 1 and 0
// Without GOMP_SPINCOUNT oneDNN's idle threads take the cores from ours.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "runtime/base/host_memory.h"
#include "runtime/bfloat16.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/peak.h"

namespace moesaic {
namespace {

constexpr int kRounds = 15;
constexpr double kSampleSeconds = 2e-3;

struct Product {
    i64 m, n, k;
};
constexpr Product kShapes[] = {{17, 512, 512},   {64, 512, 512},    {256, 512, 512},   {1024, 512, 512},
                               {256, 2048, 512}, {1024, 2048, 512}, {1024, 512, 2048}, {2048, 2048, 2048}};

/// Memory as tensors have it.
template <class T>
struct TensorMemory {
    using value_type = T;
    TensorMemory() = default;
    template <class Other>
    explicit TensorMemory(const TensorMemory<Other>&) {}
    T* allocate(std::size_t count) {
        void* const data = allocate_host_memory(static_cast<i64>(count * sizeof(T)));
        if (!data) throw std::bad_alloc();
        return static_cast<T*>(data);
    }
    void deallocate(T* data, std::size_t) { std::free(data); }
    bool operator==(const TensorMemory&) const = default;
};
template <class T>
using Values = std::vector<T, TensorMemory<T>>;

double flops_of(const Product& product) {
    return 2.0 * static_cast<double>(product.m * product.n * product.k);
}

template <class Stored>
Values<Stored> values(i64 count) {
    Values<Stored> out(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < out.size(); ++i) {
        const float value = static_cast<float>(i % 17) * 0.1F - 0.8F;
        if constexpr (std::is_same_v<Stored, BFloat16>) {
            out[i] = to_bfloat16(value);
        } else {
            out[i] = value;
        }
    }
    return out;
}

/// Both libraries' product of one shape.
template <class Stored>
class Pair {
  public:
    Pair(const Product& shape, ThreadPool& pool) : shape_(shape), pool_(pool) {
        const auto& [m, n, k] = shape;
        packed_.resize(static_cast<std::size_t>(packed_elements<Stored>(k, n)));
        pack_weight<Stored>(pool, {.weight = b_.data(), .n = k, .p = n, .plain = packed_.data()});
        using Tag = dnnl::memory::format_tag;
        const dnnl::memory::desc rows({m, k}, kType, Tag::ab), weights({k, n}, kType, Tag::ab);
        const dnnl::matmul::desc what(rows, {{k, n}, kType, Tag::any}, {{m, n}, kType, Tag::ab});
        const dnnl::matmul::primitive_desc how(what, engine_);
        theirs_packed_.resize(how.weights_desc().get_size());
        dnnl::memory plain(weights, engine_, b_.data()),
            copy(how.weights_desc(), engine_, theirs_packed_.data());
        dnnl::reorder(plain, copy).execute(stream_, plain, copy);
        stream_.wait();
        theirs_ = dnnl::matmul(how);
        arguments_ = {{DNNL_ARG_SRC, dnnl::memory(rows, engine_, a_.data())},
                      {DNNL_ARG_WEIGHTS, copy},
                      {DNNL_ARG_DST, dnnl::memory(how.dst_desc(), engine_, c_.data())}};
    }

    void ours() {
        MatrixProduct<float> product;
        product.m = shape_.m, product.n = shape_.n, product.p = shape_.k;
        product.a = operand(a_.data(), shape_.k);
        product.b = operand(b_.data(), shape_.n);
        product.packed_b = packed_.data();
        product.c_row_stride = shape_.n;
        if constexpr (std::is_same_v<Stored, BFloat16>) {
            product.rounded_c = c_.data();
        } else {
            product.c = c_.data();
        }
        multiply(pool_, product);
    }
    void theirs() {
        theirs_.execute(stream_, arguments_);
        stream_.wait();
    }

  private:
    static constexpr auto kType =
        std::is_same_v<Stored, BFloat16> ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    Product shape_;
    ThreadPool& pool_;
    Values<Stored> a_ = values<Stored>(shape_.m * shape_.k), b_ = values<Stored>(shape_.n * shape_.k),
                   c_ = values<Stored>(shape_.m * shape_.n), packed_;
    Values<std::byte> theirs_packed_;
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream_{engine_};
    dnnl::matmul theirs_;
    std::unordered_map<int, dnnl::memory> arguments_;
};

double median(std::vector<double> of) {
    std::ranges::sort(of);
    return of[of.size() / 2];
}

/// GFLOP/s of calls back to back for about kSampleSeconds, behind untimed ones for half as long: threads that
/// slept while the other library worked take up to a millisecond to wake.
double sample(double flops, double peak, const std::function<void()>& call) {
    const i64 calls = std::max<i64>(1, static_cast<i64>(kSampleSeconds * peak / flops));
    for (i64 i = 0; i < (calls + 1) / 2; ++i) call();
    const auto start = std::chrono::steady_clock::now();
    for (i64 i = 0; i < calls; ++i) call();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    return 1e-9 * flops * static_cast<double>(calls) / time.count();
}

/// A shape's samples of all rounds.
struct Samples {
    std::vector<double> peaks, peak_medians, ours, theirs, ratios;
};

/// The least ratio of all shapes. Rounds take every shape in turn: what disturbs the machine for a second
/// falls on one sample of many shapes, not on many samples of one.
template <class Stored>
double compare(const char* name, PeakType type, int threads) {
    ThreadPool pool(threads);
    std::vector<std::unique_ptr<Pair<Stored>>> pairs;
    for (const Product& shape : kShapes) pairs.push_back(std::make_unique<Pair<Stored>>(shape, pool));
    std::vector<Samples> samples(pairs.size());
    for (int round = 0; round < kRounds; ++round) {
        for (std::size_t i = 0; i < pairs.size(); ++i) {
            const Peak measured = measure_peak(type, threads, 5);
            const double flops = flops_of(kShapes[i]), peak = measured.best;
            samples[i].peaks.push_back(1e-9 * peak);
            samples[i].peak_medians.push_back(1e-9 * measured.median);
            samples[i].ours.push_back(sample(flops, peak, [&] { pairs[i]->ours(); }));
            samples[i].theirs.push_back(sample(flops, peak, [&] { pairs[i]->theirs(); }));
            samples[i].ratios.push_back(samples[i].ours.back() / samples[i].theirs.back());
        }
    }
    double least = 1e9;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        const auto& [peaks, peak_medians, ours, theirs, ratios] = samples[i];
        const double best = median(peaks) / 100, middle = median(peak_medians) / 100;
        const Product& shape = kShapes[i];
        least = std::min(least, median(ratios));
        std::printf(
            "%-4s %d threads %5ld x %5ld x %5ld  peak %7.1f  ours %5.1f %% (%5.1f)  oneDNN %5.1f %% (%5.1f)"
            "  %5.3f\n",
            name, threads, shape.m, shape.n, shape.k, median(peaks), median(ours) / best,
            median(ours) / middle, median(theirs) / best, median(theirs) / middle, median(ratios));
    }
    return least;
}

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) {
    using namespace moesaic;
    const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
    const double wanted = argc > 2 ? std::atof(argv[2]) : 0;
    omp_set_num_threads(threads);
    double least = compare<float>("f32", PeakType::f32, threads);
    if (!assembly_peak_loops(PeakType::bf16).empty())  // oneDNN may have no bf16 elsewhere
        least = std::min(least, compare<BFloat16>("bf16", PeakType::bf16, threads));
    return least < wanted ? 3 : 0;
}
