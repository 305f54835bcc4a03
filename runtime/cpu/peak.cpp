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

/// Twelve independent chains hide the latency of a fused multiply-add (4 cycles on 2 ports needs 8). Returns
/// flops done.
template <class T>
double multiply_add_loop(i64 rounds, T* sink) {
    const hn::ScalableTag<T> d;
    using V = hn::Vec<decltype(d)>;
    const V factor = hn::Set(d, static_cast<T>(0.999));
    // Chains that start alike would be one chain to the compiler.
    const auto start = [d](int chain) { return hn::Set(d, static_cast<T>(1 + chain)); };
    V a0 = start(0), a1 = start(1), a2 = start(2), a3 = start(3), a4 = start(4), a5 = start(5);
    V a6 = start(6), a7 = start(7), a8 = start(8), a9 = start(9), a10 = start(10), a11 = start(11);
    const V addend = hn::Set(d, *sink);
    for (i64 i = 0; i < rounds; ++i) {
        a0 = hn::MulAdd(a0, factor, addend);
        a1 = hn::MulAdd(a1, factor, addend);
        a2 = hn::MulAdd(a2, factor, addend);
        a3 = hn::MulAdd(a3, factor, addend);
        a4 = hn::MulAdd(a4, factor, addend);
        a5 = hn::MulAdd(a5, factor, addend);
        a6 = hn::MulAdd(a6, factor, addend);
        a7 = hn::MulAdd(a7, factor, addend);
        a8 = hn::MulAdd(a8, factor, addend);
        a9 = hn::MulAdd(a9, factor, addend);
        a10 = hn::MulAdd(a10, factor, addend);
        a11 = hn::MulAdd(a11, factor, addend);
    }
    const V sum = hn::Add(
        hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)),
        hn::Add(hn::Add(hn::Add(a4, a5), hn::Add(a6, a7)), hn::Add(hn::Add(a8, a9), hn::Add(a10, a11))));
    *sink = hn::GetLane(sum);
    return static_cast<double>(rounds) * 12 * 2 * static_cast<double>(hn::Lanes(d));
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
        const i64 rounds = 400000;
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
