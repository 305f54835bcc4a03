#include "runtime/cpu/cpu_backend.h"

#include "runtime/bfloat16.h"
#include "runtime/cpu/checks.h"
#include "runtime/cpu/elementwise.h"
#include "runtime/cpu/onednn.h"
#include "runtime/cpu/operand_checker.h"
#include "runtime/cpu/optimizer.h"

namespace moesaic {

using cpu::expect;
using cpu::expect_real;
using cpu::expect_stored;
using cpu::Range;

std::unique_ptr<Backend> make_cpu_backend(int threads, StreamMode mode, u64 shuffle_seed) {
    MOESAIC_ASSERT(threads >= 1, "{} threads", threads);
    return std::make_unique<CpuBackend>(threads, mode, shuffle_seed);
}

std::unique_ptr<Backend> make_cpu_backend_on(const OneDnn& library, int threads, StreamMode mode,
                                             u64 shuffle_seed) {
    MOESAIC_ASSERT(threads >= 1, "{} threads", threads);
    return std::make_unique<CpuBackend>(threads, mode, shuffle_seed, Device::cpu, &library);
}

std::unique_ptr<Backend> make_operand_checker(Device device) {
    return std::make_unique<CpuBackend>(1, StreamMode::accounting, 0, device);
}

namespace {

/// Queued work of deferred streams may still read a block that is handed out again, so they cannot poison it.
PoolMode pool_mode(StreamMode mode) {
    if (mode == StreamMode::accounting) return PoolMode::address_space;
    return kHeavyAssertions && mode == StreamMode::inline_execution ? PoolMode::poison : PoolMode::usual;
}

}  // namespace

CpuBackend::CpuBackend(int threads, StreamMode mode, u64 shuffle_seed, Device device, const OneDnn* library)
    : pool_(device, pool_mode(mode)), threads_(threads), scheduler_(mode, shuffle_seed), library_(library) {}

void CpuBackend::copy(Stream& stream, ConstTensorView from, TensorView to) {
    expect(from, to.dtype, "copy from");
    expect(to, to.dtype, "copy to");
    MOESAIC_ASSERT(from.elements() == to.elements(), "copy {} to {}", from.shape.text(), to.shape.text());
    run_on_host(stream, [this, from, to] {
        share(to.elements(), 1, [&](Range elements) { cpu::copy(from, to, elements); });
    });
}

void CpuBackend::zero(Stream& stream, TensorView y) {
    expect(y, y.dtype, "zero");
    run_on_host(stream,
                [this, y] { share(y.elements(), 1, [&](Range elements) { cpu::zero(y, elements); }); });
}

void CpuBackend::add(Stream& stream, ConstTensorView x, TensorView y) {
    expect_stored(y.dtype, "add");
    expect(y, y.dtype, "add y");
    expect(x, y.dtype, "add x");
    MOESAIC_ASSERT(x.elements() == y.elements(), "add {} to {}", x.shape.text(), y.shape.text());
    run_on_host(stream,
                [this, x, y] { share(y.elements(), 1, [&](Range elements) { cpu::add(x, y, elements); }); });
}

void CpuBackend::fold(Stream& stream, TensorView part, TensorView sum, const FoldRounding& rounding) {
    expect_real(part.dtype, "fold");
    expect(part, part.dtype, "fold part");
    const bool in_place = adds_to_gradients() && part.elements() > 0 && sum.data == part.data;
    expect(sum, in_place ? part.dtype : DType::f64, "fold sum");
    MOESAIC_ASSERT(!in_place || rounding.step == 0, "a part in the place of an exact sum");
    MOESAIC_ASSERT(part.elements() == sum.elements(), "fold {} into {}", part.shape.text(), sum.shape.text());
    run_on_host(stream, [this, part, sum, rounding] {
        share(part.elements(), 1, [&](Range elements) { cpu::fold(part, sum, elements, rounding); });
    });
}

void CpuBackend::convert(Stream& stream, ConstTensorView from, TensorView to) {
    expect_stored(from.dtype, "convert");
    expect_stored(to.dtype, "convert");
    expect(from, from.dtype, "convert from");
    expect(to, to.dtype, "convert to");
    MOESAIC_ASSERT(from.dtype == DType::f64 || to.dtype != DType::f64, "convert {} to {}",
                   name_of(from.dtype), name_of(to.dtype));
    MOESAIC_ASSERT(from.elements() == to.elements(), "convert {} to {}", from.shape.text(), to.shape.text());
    run_on_host(stream, [this, from, to] {
        share(to.elements(), 1, [&](Range elements) { cpu::convert(from, to, elements); });
    });
}

void CpuBackend::scale(Stream& stream, double factor, TensorView y) {
    expect_stored(y.dtype, "scale");
    expect(y, y.dtype, "scale");
    run_on_host(stream, [this, factor, y] {
        share(y.elements(), 1, [&](Range elements) { cpu::scale(factor, y, elements); });
    });
}

void CpuBackend::clamp(Stream& stream, double limit, TensorView y) {
    expect_stored(y.dtype, "clamp");
    expect(y, y.dtype, "clamp");
    MOESAIC_ASSERT(limit >= 0, "clamp to {}", limit);
    run_on_host(stream, [this, limit = rounded_to(y.dtype, limit), y] {
        share(y.elements(), 1, [&](Range elements) { cpu::clamp(limit, y, elements); });
    });
}

void CpuBackend::clamp_grad(Stream& stream, double limit, ConstTensorView y, TensorView dy) {
    expect_stored(y.dtype, "clamp_grad");
    expect(y, y.dtype, "clamp_grad y");
    expect(dy, y.dtype, "clamp_grad dy");
    MOESAIC_ASSERT(y.elements() == dy.elements(), "y {} dy {}", y.shape.text(), dy.shape.text());
    run_on_host(stream, [this, limit = rounded_to(y.dtype, limit), y, dy] {
        share(y.elements(), 1, [&](Range elements) { cpu::clamp_grad(limit, y, dy, elements); });
    });
}

void CpuBackend::adamw(Stream& stream, const AdamW& operation) {
    const DType real = operation.parameter.dtype;
    const i64 elements = operation.parameter.elements();
    expect_real(real, "adamw");
    for (const ConstTensorView view :
         {ConstTensorView(operation.parameter), ConstTensorView(operation.first_moment),
          ConstTensorView(operation.second_moment), operation.gradient}) {
        expect(view, real, "adamw operand");
        MOESAIC_ASSERT(view.elements() == elements, "adamw operand {}, parameter {}", view.shape.text(),
                       elements);
    }
    if (operation.rounded.data) {
        expect(operation.rounded, DType::bf16, "adamw rounded");
        MOESAIC_ASSERT(real == DType::f32 && operation.rounded.elements() == elements,
                       "adamw rounded {}, parameter {}", operation.rounded.shape.text(), elements);
    }
    MOESAIC_ASSERT(operation.step >= 1, "adamw step {}", operation.step);
    run_on_host(stream, [this, operation, elements] {
        share(elements, 1, [&](Range part) { cpu::adamw(operation, part); });
    });
}

void CpuBackend::block_sum_squares(Stream& stream, ConstTensorView values, i64 block, TensorView sums) {
    expect_real(values.dtype, "block_sum_squares");
    expect(values, values.dtype, "block_sum_squares values");
    MOESAIC_ASSERT(block > 0, "block of {}", block);
    const i64 blocks = (values.elements() + block - 1) / block;
    expect(sums, blocks, 1, DType::f64, "block_sum_squares sums");
    run_on_host(stream, [this, values, block, sums, blocks] {
        share(blocks, block, [&](Range part) { cpu::block_sum_squares(values, block, sums, part); });
    });
}

}  // namespace moesaic
