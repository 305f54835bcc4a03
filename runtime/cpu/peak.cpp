#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/peak.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/cpu/peak.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// As many chains as registers take besides the two operands; a fused multiply-add of 4 cycles on 2 ports
// needs 8.
constexpr int kChains = HWY_MAX_BYTES >= 64 ? 24 : 12;

/// Returns the flops done.
template <class T>
double multiply_add_loop(i64 rounds, T* sink) {
    const hn::ScalableTag<T> d;
    const auto factor = hn::Set(d, static_cast<T>(0.999)), addend = hn::Set(d, *sink);
    hn::Vec<decltype(d)> chains[kChains];
    // Chains that start alike would be one chain to the compiler.
#pragma GCC unroll 24
    for (int chain = 0; chain < kChains; ++chain) chains[chain] = hn::Set(d, static_cast<T>(1 + chain));
    for (i64 i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
        for (int chain = 0; chain < kChains; ++chain)
            chains[chain] = hn::MulAdd(chains[chain], factor, addend);
    }
    auto sum = addend;
#pragma GCC unroll 24
    for (int chain = 0; chain < kChains; ++chain) sum = hn::Add(sum, chains[chain]);
    *sink = hn::GetLane(sum);
    return static_cast<double>(rounds) * kChains * 2 * static_cast<double>(hn::Lanes(d));
}

double float_loop(i64 rounds) {
    volatile float start = 0.5F;
    float sink = start;
    const double flops = multiply_add_loop<float>(rounds, &sink);
    start = sink;
    return flops;
}
double double_loop(i64 rounds) {
    volatile double start = 0.5;
    double sink = start;
    const double flops = multiply_add_loop<double>(rounds, &sink);
    start = sink;
    return flops;
}

}  // namespace HWY_NAMESPACE
}  // namespace moesaic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic {
HWY_EXPORT(float_loop);
HWY_EXPORT(double_loop);

namespace {

double flops_per_second(bool double_precision) {
    using Clock = std::chrono::steady_clock;
    double best = 0;
    for (int round = 0; round < 5; ++round) {
        const auto start = Clock::now();
        const i64 rounds = 200000;
        const double flops = double_precision ? HWY_DYNAMIC_DISPATCH(double_loop)(rounds)
                                              : HWY_DYNAMIC_DISPATCH(float_loop)(rounds);
        const std::chrono::duration<double> seconds = Clock::now() - start;
        best = std::max(best, flops / seconds.count());
    }
    return best;
}

}  // namespace

double measure_peak_flops(int threads, bool double_precision) {
    std::vector<double> results(static_cast<std::size_t>(threads));
    std::vector<std::jthread> workers;
    for (std::size_t i = 1; i < results.size(); ++i) {
        workers.emplace_back(
            [&results, i, double_precision] { results[i] = flops_per_second(double_precision); });
    }
    results[0] = flops_per_second(double_precision);
    workers.clear();
    double sum = 0;
    for (const double one : results) sum += one;
    return sum;
}

}  // namespace moesaic
#endif
