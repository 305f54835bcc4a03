// What vector kernels share, compiled once per target: loads and stores with tails, sums in a fixed order.
#if defined(MOESAIC_RUNTIME_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_SIMD_INL_H_
#undef MOESAIC_RUNTIME_CPU_SIMD_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_SIMD_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "runtime/base/types.h"
#include "runtime/cpu/peak_loops.h"
#include "runtime/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Lane = hn::TFromD<D>;
template <class Real>
using FullVector = hn::ScalableTag<Real>;

template <class D>
constexpr i64 lanes_of(D d) {
    return static_cast<i64>(hn::MaxLanes(d));
}

template <class D>
HWY_NOINLINE hn::Vec<D> load_tail(D d, const Lane<D>* from, i64 rest, Lane<D> fill) {
    HWY_ALIGN Lane<D> buffer[hn::MaxLanes(d)];
    for (i64 lane = 0; lane < lanes_of(d); ++lane) buffer[lane] = lane < rest ? from[lane] : fill;
    return hn::Load(d, buffer);
}
template <class D>
HWY_NOINLINE void store_tail(D d, hn::Vec<D> value, Lane<D>* to, i64 rest) {
    HWY_ALIGN Lane<D> buffer[hn::MaxLanes(d)];
    hn::Store(value, d, buffer);
    for (i64 lane = 0; lane < rest; ++lane) to[lane] = buffer[lane];
}

/// A vector from memory where `rest` elements are left; lanes beyond them hold `fill`. An element's bits do
/// not depend on whether it stands in a tail.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Lane<D>* from, i64 rest, Lane<D> fill = 0) {
    if (HWY_LIKELY(rest >= lanes_of(d))) return hn::LoadU(d, from);
    return load_tail(d, from, rest, fill);
}
template <class D>
HWY_INLINE void store(D d, hn::Vec<D> value, Lane<D>* to, i64 rest) {
    if (HWY_LIKELY(rest >= lanes_of(d))) {
        hn::StoreU(value, d, to);
    } else {
        store_tail(d, value, to, rest);
    }
}

/// As store; `kStreamed`: whole vectors go past the caches, to where they are aligned. hwy::FlushStream()
/// before other threads may read.
template <bool kStreamed, class D>
HWY_INLINE void put(D d, hn::Vec<D> value, Lane<D>* to, i64 rest) {
    constexpr bool kStreams = kStreamed && hn::MaxLanes(D()) * sizeof(Lane<D>) >= 16;  // Stream takes no less
    if constexpr (kStreams) {
        if (HWY_LIKELY(rest >= lanes_of(d))) return hn::Stream(value, d, to);
    }
    store(d, value, to, rest);
}
/// How many of `count` elements stand before the first one at the beginning of a cache line.
template <class T>
i64 elements_before_line(const T* first, i64 count) {
    const auto past = static_cast<i64>(reinterpret_cast<std::uintptr_t>(first) % 64);
    return std::min(count, (64 - past) % 64 / static_cast<i64>(sizeof(T)));
}

template <class D>
using BFloat16Bits = hn::Vec<hn::Rebind<std::uint16_t, D>>;
template <class D>
HWY_INLINE hn::Vec<D> widened_bits(D d, BFloat16Bits<D> bits) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<D>(), bits)));
}

/// bf16 in memory, f32 in registers: widened exactly here, rounded once by the store below.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const BFloat16* from, i64 rest) {
    const hn::Rebind<std::uint16_t, D> halves;
    return widened_bits(d, load(halves, reinterpret_cast<const std::uint16_t*>(from), rest));
}

/// To the nearest, ties to even; NaN stays NaN (as to_bfloat16 in runtime/bfloat16.h).
template <class D>
HWY_INLINE BFloat16Bits<D> rounded_to_bfloat16(D /*d*/, hn::Vec<D> value) {
    const hn::RebindToUnsigned<D> wide;
    const hn::RebindToSigned<D> positive;
    const auto bits = hn::BitCast(wide, value), upper = hn::ShiftRight<16>(bits);
    const auto tie = hn::Add(hn::Set(wide, 0x7fffu), hn::And(upper, hn::Set(wide, 1u)));
    const auto nearest = hn::ShiftRight<16>(hn::Add(bits, tie));
    const auto quiet = hn::Or(upper, hn::Set(wide, 0x40u));
    const auto rounded = hn::IfThenElse(hn::RebindMask(wide, hn::IsNaN(value)), quiet, nearest);
    return hn::DemoteTo(hn::Rebind<std::uint16_t, D>(), hn::BitCast(positive, rounded));
}
/// The same by an instruction that Highway does not have yet, where has_bf16_dot_product(); but denormal
/// numbers become zeros.
template <class D>
HWY_INLINE BFloat16Bits<D> rounded_by_instruction(D /*d*/, hn::Vec<D> value) {
    auto rounded = hn::Zero(hn::Rebind<std::uint16_t, D>());
    asm("vcvtneps2bf16 %1, %0" : "=v"(rounded.raw) : "v"(value.raw));
    return rounded;
}
template <class D>
HWY_INLINE void store(D d, hn::Vec<D> value, BFloat16* to, i64 rest) {
    const hn::Rebind<std::uint16_t, D> halves;
    store(halves, rounded_to_bfloat16(d, value), reinterpret_cast<std::uint16_t*>(to), rest);
}

/// How kernels round that round so much that it shows.
struct PlainRounding {
    template <class D>
    static HWY_INLINE BFloat16Bits<D> round(D d, hn::Vec<D> value) {
        return rounded_to_bfloat16(d, value);
    }
};
/// Vectors with denormal numbers go the plain way.
struct RoundingInstruction {
    template <class D>
    static HWY_INLINE BFloat16Bits<D> round(D d, hn::Vec<D> value) {
        std::uint16_t denormal;
        asm("vfpclassps $0x20, %1, %0" : "=k"(denormal) : "v"(value.raw));
        if (HWY_UNLIKELY(denormal != 0)) return rounded_to_bfloat16(d, value);
        return rounded_by_instruction(d, value);
    }
};
/// Calls use(rounding) with the quickest one that this CPU has.
template <class Use>
HWY_INLINE void with_rounding(const Use& use) {
    if constexpr (HWY_TARGET == HWY_AVX3) {
        if (has_bf16_dot_product()) return use(RoundingInstruction{});
    }
    use(PlainRounding{});
}

/// The sum of a vector's lanes: lower half onto upper half until one is left.
template <class D>
HWY_INLINE Lane<D> sum_of_halves(D d, hn::Vec<D> value) {
    if constexpr (hn::MaxLanes(D()) == 1) {
        (void)d;
        return hn::GetLane(value);
    } else {
        const hn::Half<D> half;
        // Unqualified: the target without vectors has no UpperHalf to name.
        return sum_of_halves(half, hn::Add(hn::LowerHalf(half, value), UpperHalf(half, value)));
    }
}

/// Running sums, one per column modulo this, so that the order of a sum is the same for every vector width.
constexpr i64 kRunningSums = 32;

/// The sum over columns [0, columns) in that order. `add_to(column, rest, sum)` returns sum plus the terms of
/// the vector of columns that starts at `column`, of which `rest` exist; the others must add zero.
template <class D, class AddTo>
HWY_INLINE Lane<D> sum_over_columns(D d, i64 columns, AddTo&& add_to) {
    constexpr i64 kVectors = kRunningSums / lanes_of(D());
    hn::Vec<D> sums[kVectors];
    for (auto& sum : sums) sum = hn::Zero(d);
    i64 first = 0;
    for (; first + kRunningSums <= columns; first += kRunningSums) {
        for (i64 vector = 0; vector < kVectors; ++vector) {
            const i64 column = first + vector * lanes_of(d);
            sums[vector] = add_to(column, lanes_of(d), sums[vector]);
        }
    }
    for (i64 vector = 0; vector < kVectors; ++vector) {
        const i64 column = first + vector * lanes_of(d);
        if (column < columns) sums[vector] = add_to(column, columns - column, sums[vector]);
    }
    for (i64 half = kVectors / 2; half > 0; half /= 2) {
        for (i64 vector = 0; vector < half; ++vector) {
            sums[vector] = hn::Add(sums[vector], sums[vector + half]);
        }
    }
    return sum_of_halves(d, sums[0]);
}

/// e^x for x up to 80 (f32) or 700 (f64); keeps NaN, which Highway's own turns into 0.
template <class D>
HWY_INLINE hn::Vec<D> exponential(D d, hn::Vec<D> x) {
    return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

/// 1 / (1 + e^-x) without overflow: only the exponential of a negative number is taken. NaN may become 1.
template <class D>
HWY_INLINE hn::Vec<D> sigmoid(D d, hn::Vec<D> x) {
    const auto one = hn::Set(d, Lane<D>{1});
    const auto power = hn::Exp(d, hn::Neg(hn::Abs(x)));
    const auto numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), power, one);
    return hn::Div(numerator, hn::Add(one, power));
}

/// What arithmetic on stored values is done in.
template <class Stored>
using RealOf = std::conditional_t<std::is_same_v<Stored, BFloat16>, float, Stored>;

/// Calls `kernel` with a value of the type that `dtype` stands for: f64, f32 or bf16.
template <class Kernel>
void for_stored(DType dtype, Kernel&& kernel) {
    if (dtype == DType::f32) {
        kernel(float{});
    } else if (dtype == DType::bf16) {
        kernel(BFloat16{});
    } else {
        kernel(double{});
    }
}

/// As for_stored, for f32 and bf16 alone.
template <class Kernel>
void for_narrow(DType dtype, Kernel&& kernel) {
    if (dtype == DType::f32) {
        kernel(float{});
    } else {
        kernel(BFloat16{});
    }
}

/// Calls `kernel` with a value of the real type that `dtype` stands for.
template <class Kernel>
void for_real(DType dtype, Kernel&& kernel) {
    if (dtype == DType::f32) {
        kernel(float{});
    } else {
        kernel(double{});
    }
}

}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
