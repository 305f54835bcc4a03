#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/sigmoid_gate.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <cmath>

#include "runtime/cpu/sigmoid_gate.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

template <class Real>
Real gate_of(Real logit) {
    return static_cast<Real>(1 / (1 + std::exp(-static_cast<double>(logit))));
}

void gate_target(const SigmoidGate& operation, Range rows) {
    for_stored(operation.y.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        using Real = RealOf<Stored>;
        const FullVector<Real> d;
        const i64 width = operation.y.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            const auto gate = hn::Set(d, gate_of(operation.logit.as<Real>()[row]));
            const Stored* const from = operation.rows.as<Stored>() + row * width;
            Stored* const y = operation.y.as<Stored>() + row * width;
            for (i64 i = 0; i < width; i += lanes_of(d)) {
                const i64 rest = width - i;
                store(d, hn::MulAdd(gate, load(d, from + i, rest), load(d, y + i, rest)), y + i, rest);
            }
        }
    });
}

void gate_grad_target(const SigmoidGateGrad& operation, Range rows) {
    for_stored(operation.dy.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        using Real = RealOf<Stored>;
        const FullVector<Real> d;
        const i64 width = operation.dy.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Real gate = gate_of(operation.logit.as<Real>()[row]);
            const Stored* const dy = operation.dy.as<Stored>() + row * width;
            const Stored* const from = operation.rows.as<Stored>() + row * width;
            // The dot product comes first: d_rows may be the rows' own memory.
            const Real dot =
                sum_over_columns(d, width, [&](i64 i, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
                    return hn::MulAdd(load(d, dy + i, rest), load(d, from + i, rest), sum);
                });
            operation.d_logit.as<Real>()[row] = gate * (1 - gate) * dot;
            Stored* const d_rows = operation.d_rows.as<Stored>() + row * width;
            for (i64 i = 0; i < width; i += lanes_of(d)) {
                const i64 rest = width - i;
                store(d, hn::Mul(hn::Set(d, gate), load(d, dy + i, rest)), d_rows + i, rest);
            }
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(gate_target);
HWY_EXPORT(gate_grad_target);

void sigmoid_gate(const SigmoidGate& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(gate_target)(operation, rows);
}
void sigmoid_gate_grad(const SigmoidGateGrad& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(gate_grad_target)(operation, rows);
}

}  // namespace moesaic::cpu
#endif
