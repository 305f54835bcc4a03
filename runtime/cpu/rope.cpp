#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/rope.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include "runtime/cpu/rope.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

/// Turns each pair (x[i], x[i + half]) by its angle, or back by it.
template <class Stored, class Real = RealOf<Stored>>
void rotate_head(Stored* x, const Real* cosine, const Real* sine, i64 half, bool inverse) {
    const FullVector<Real> d;
    for (i64 i = 0; i < half; i += lanes_of(d)) {
        const i64 rest = half - i;
        const auto c = load(d, cosine + i, rest);
        auto s = load(d, sine + i, rest);
        if (inverse) s = hn::Neg(s);
        const auto lower = load(d, x + i, rest), upper = load(d, x + half + i, rest);
        store(d, hn::NegMulAdd(upper, s, hn::Mul(lower, c)), x + i, rest);
        store(d, hn::MulAdd(lower, s, hn::Mul(upper, c)), x + half + i, rest);
    }
}

void rope_target(const Rope& operation, Range rows) {
    for_stored(operation.x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        using Real = RealOf<Stored>;
        const i64 half = operation.head_dim / 2;
        for (i64 row = rows.first; row < rows.last; ++row) {
            const i64 angles = row % operation.seq_len * half;
            Stored* x = operation.x.as<Stored>() + row * operation.row_stride;
            for (i64 head = 0; head < operation.heads; ++head) {
                rotate_head(x + head * operation.head_dim, operation.cosine.as<Real>() + angles,
                            operation.sine.as<Real>() + angles, half, operation.inverse);
            }
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(rope_target);

void rope(const Rope& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(rope_target)(operation, rows);
}

}  // namespace moesaic::cpu
#endif
