// The peak loop of other architectures and older x86: fused multiply-adds in C++, compiled per instruction
// set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/peak_loops_portable.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "runtime/base/error.h"
#include "runtime/cpu/peak_loops.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Twelve independent chains hide the latency of a fused multiply-add (4 cycles on 2 ports needs 8).
constexpr int kChains = 12;
template <class T>
void multiply_add_loop(i64 rounds, T* sink) {
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
}

template <class T>
void run_loop(i64 rounds) {
    volatile T start = static_cast<T>(0.5);
    T sink = start;
    multiply_add_loop<T>(rounds, &sink);
    start = sink;
}
void float_loop(i64 rounds) {
    run_loop<float>(rounds);
}
void double_loop(i64 rounds) {
    run_loop<double>(rounds);
}
double flops_of_a_float_round() {
    return kChains * 2.0 * static_cast<double>(hn::Lanes(hn::ScalableTag<float>()));
}

}  // namespace HWY_NAMESPACE
}  // namespace moesaic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic {
HWY_EXPORT(float_loop);
HWY_EXPORT(double_loop);
HWY_EXPORT(flops_of_a_float_round);

PeakLoop portable_peak_loop(PeakType type) {
    MOESAIC_ASSERT(type != PeakType::bf16, "there is no portable loop for bf16");
    const double flops = HWY_DYNAMIC_DISPATCH(flops_of_a_float_round)();
    if (type == PeakType::f32)
        return {"multiply-add in C++", false, flops, [](i64 rounds) {
                    HWY_DYNAMIC_DISPATCH(float_loop)(rounds);
                }};
    return {"multiply-add in C++", false, flops / 2, [](i64 rounds) {
                HWY_DYNAMIC_DISPATCH(double_loop)(rounds);
            }};
}

}  // namespace moesaic
#endif
