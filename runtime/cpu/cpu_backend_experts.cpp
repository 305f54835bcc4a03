// Products by groups of rows and the activations between them: what experts and feed-forwards compute.
#include "runtime/cpu/activation.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/grouped_gemm.h"
#include "runtime/cpu/product_operands.h"

namespace moesaic {

using cpu::data_or_null;
using cpu::expect;
using cpu::expect_real;
using cpu::expect_stored;
using cpu::Range;
using cpu::run_with_numbers;
using cpu::with_real;

namespace {

i64 sum_of(std::span<const i64> numbers) {
    return std::accumulate(numbers.begin(), numbers.end(), i64{0});
}

void check_groups(std::span<const i64> rows_per_group, i64 groups, i64 rows) {
    MOESAIC_ASSERT(static_cast<i64>(rows_per_group.size()) == groups && sum_of(rows_per_group) <= rows,
                   "{} groups of {} rows in all, operands for {} groups and {} rows", rows_per_group.size(),
                   sum_of(rows_per_group), groups, rows);
}

/// An operand [rows, columns], or one of which `index` [rows] says the rows.
void check_rows(ConstTensorView operand, ConstTensorView index, i64 rows, i64 columns, DType real,
                std::string_view name) {
    if (index.data) expect(index, rows, 1, DType::int32, "row index");
    expect(operand, index.data ? operand.rows() : rows, columns, real, name);
}

/// As given, for a result [rows, width] that may be kept nowhere.
void check_product(const GroupedGemm& product, i64 rows, i64 width, DType real, i64 halves) {
    const i64 inner = product.a.cols(), groups = product.b.rows();
    expect_real(real, "grouped_gemm");
    check_rows(product.a, product.a_rows, rows, inner, real, "grouped_gemm a");
    expect(product.b, groups, inner * width, real, "grouped_gemm b");
    check_groups(product.rows_per_group, groups, rows);
    cpu::check_packed(product.packed_b, real, groups, inner, width, halves);
}

template <class Real>
GroupedProduct<Real> grouped_product(const GroupedGemm& product, std::span<const i64> rows_per_group,
                                     i64 width) {
    return {.rows_per_group = rows_per_group,
            .n = width,
            .p = product.a.cols(),
            .a = product.a.as<Real>(),
            .b = product.b.as<Real>(),
            .c = product.c.data ? product.c.as<Real>() : nullptr,
            .trans_b = product.trans_b,
            .accumulate = product.accumulate,
            .packed_b = data_or_null<Real>(product.packed_b),
            .a_rows = data_or_null<i32>(product.a_rows)};
}

/// What both directions have in common; `y` stands for y or dy.
template <class Operation>
void check_activation(const Operation& operation, i64 rows, i64 width, i64 groups, DType dtype) {
    expect_stored(dtype, "activation");
    expect(operation.x, rows, activation_halves(operation.kind) * width, dtype, "activation x");
    if (operation.kind == ActivationKind::prelu) {
        expect(operation.slope, groups, 1, dtype, "activation slope");
    } else {
        MOESAIC_ASSERT(!operation.slope.data, "{} slopes of an activation without", operation.slope.rows());
    }
}

/// Rows in groups count for activations with a slope alone.
template <class Operation>
void check_activation_groups(const Operation& operation, i64 rows) {
    if (operation.kind != ActivationKind::prelu) return;
    MOESAIC_ASSERT(sum_of(operation.rows_per_group) == rows, "groups of {} rows in all, {} rows",
                   sum_of(operation.rows_per_group), rows);
}

template <class Real>
class ActivationWork final : public BlockWork<Real> {
  public:
    explicit ActivationWork(const Activation& operation) : operation_(operation) {}
    void run(const FinishedBlock<Real>& block) const override {
        const i64 width = operation_.y.cols();
        cpu::activate({operation_.kind, dtype_of<Real>(), block.rows, block.columns, block.c_row_stride,
                       width, width, cpu::slope_of(operation_.slope, block.product)},
                      block.c, operation_.y.as<Real>() + block.first_row * width + block.first_column);
    }

  private:
    const Activation& operation_;
};

template <class Real>
class ActivationGradWork final : public BlockWork<Real> {
  public:
    explicit ActivationGradWork(const ActivationGrad& operation) : operation_(operation) {}
    void run(const FinishedBlock<Real>& block) const override {
        const i64 wide = operation_.x.cols(), width = wide / activation_halves(operation_.kind);
        const i64 first = block.first_row * wide + block.first_column;
        cpu::activate_backward({operation_.kind, dtype_of<Real>(), block.rows, block.columns, wide,
                                block.c_row_stride, width, 0},
                               operation_.x.as<Real>() + first, block.c, operation_.dx.as<Real>() + first);
    }

  private:
    const ActivationGrad& operation_;
};

}  // namespace

void CpuBackend::grouped_gemm(Stream& stream, const GroupedGemm& operation) {
    const i64 width = operation.c.cols();
    if (cpu::any_bf16(operation.a, operation.b, operation.c))
        return cpu::grouped_gemm_in_f32(*this, stream, operation);
    check_product(operation, operation.c.rows(), width, operation.c.dtype, 1);
    expect(operation.c, operation.c.dtype, "grouped_gemm c");
    run_with_numbers(
        stream, operation.rows_per_group, [this, operation, width](std::span<const i64> rows_per_group) {
            with_real(operation.c.dtype, [&](auto element) {
                using Real = decltype(element);
                multiply_groups(threads_, grouped_product<Real>(operation, rows_per_group, width), library_);
            });
        });
}

void CpuBackend::grouped_gemm_weight_grad(Stream& stream, const GroupedGemmWeightGrad& operation) {
    const auto& [a, b, c, rows_per_part, a_rows, b_rows] = operation;
    const i64 height = a.cols(), width = b.cols(), groups = c.rows();
    if (cpu::any_bf16(a, b, c)) return cpu::grouped_gemm_weight_grad_in_f32(*this, stream, operation);
    expect_real(a.dtype, "grouped_gemm_weight_grad");
    const i64 rows = a_rows.data ? a_rows.rows() : a.rows();
    check_rows(a, a_rows, rows, height, a.dtype, "grouped_gemm_weight_grad a");
    check_rows(b, b_rows, rows, width, a.dtype, "grouped_gemm_weight_grad b");
    expect(c, groups, height * width, DType::f64, "grouped_gemm_weight_grad c");
    const i64 parts = groups > 0 ? static_cast<i64>(rows_per_part.size()) / groups : 0;
    check_groups(rows_per_part, groups * parts, rows);
    run_with_numbers(stream, rows_per_part,
                     [this, operation, groups, height, width](std::span<const i64> numbers) {
                         with_real(operation.a.dtype, [&](auto element) {
                             using Real = decltype(element);
                             accumulate_weight_grads<Real>(threads_,
                                                           {.rows_per_part = numbers,
                                                            .groups = groups,
                                                            .m = height,
                                                            .n = width,
                                                            .a = operation.a.as<Real>(),
                                                            .b = operation.b.as<Real>(),
                                                            .c = operation.c.as<double>(),
                                                            .a_rows = data_or_null<i32>(operation.a_rows),
                                                            .b_rows = data_or_null<i32>(operation.b_rows)},
                                                           library_);
                         });
                     });
}

void CpuBackend::activation(Stream& stream, const Activation& operation) {
    const i64 rows = operation.y.rows(), width = operation.y.cols();
    expect(operation.y, operation.x.dtype, "activation y");
    check_activation(operation, rows, width, std::ssize(operation.rows_per_group), operation.x.dtype);
    check_activation_groups(operation, rows);
    run_with_numbers(stream, operation.rows_per_group,
                     [this, operation, rows](std::span<const i64> rows_per_group) {
                         share(rows, operation.x.cols(),
                               [&](Range part) { cpu::activation(operation, rows_per_group, part); });
                     });
}

void CpuBackend::activation_backward(Stream& stream, const ActivationGrad& operation) {
    const i64 rows = operation.dy.rows(), width = operation.dy.cols();
    const i64 groups = std::ssize(operation.rows_per_group);
    const DType dtype = operation.x.dtype;
    expect(operation.dy, dtype, "activation dy");
    expect(operation.dx, rows, operation.x.cols(), dtype, "activation dx");
    check_activation(operation, rows, width, groups, dtype);
    check_activation_groups(operation, rows);
    const bool learnt = operation.kind == ActivationKind::prelu;
    if (learnt) expect(operation.d_slope, groups, 1, DType::f64, "activation d_slope");
    run_with_numbers(stream, operation.rows_per_group,
                     [this, operation, rows, learnt](std::span<const i64> rows_per_group) {
                         share(rows, operation.x.cols(),
                               [&](Range part) { cpu::activation_grad(operation, rows_per_group, part); });
                         if (!learnt) return;
                         share(std::ssize(rows_per_group), operation.x.elements(),
                               [&](Range part) { cpu::slope_grad(operation, rows_per_group, part); });
                     });
}

void CpuBackend::grouped_gemm_activation(Stream& stream, const GroupedGemm& product,
                                         const Activation& after) {
    const i64 rows = product.c.rows(), halves = activation_halves(after.kind);
    if (cpu::any_bf16(product.a, product.b, product.c) || product.a.cols() == 0 ||
        by_library(product.c.dtype))
        return cpu::grouped_gemm_activation_in_turn(*this, stream, product, after);
    MOESAIC_ASSERT(!after.x.data && after.rows_per_group.empty(), "the product gives x and the groups");
    Activation whole = after;
    whole.x = product.c;
    expect(product.c, product.c.dtype, "grouped_gemm c");
    check_product(product, rows, product.c.cols(), product.c.dtype, halves);
    expect(after.y, rows, product.c.cols() / halves, product.c.dtype, "activation y");
    check_activation(whole, rows, after.y.cols(), product.b.rows(), product.c.dtype);
    run_with_numbers(stream, product.rows_per_group,
                     [this, product, whole, halves](std::span<const i64> rows_per_group) {
                         with_real(product.c.dtype, [&](auto element) {
                             using Real = decltype(element);
                             const ActivationWork<Real> work(whole);
                             GroupedProduct<Real> groups =
                                 grouped_product<Real>(product, rows_per_group, product.c.cols());
                             groups.work = &work;
                             groups.halves = halves;
                             multiply_groups(threads_, groups);
                         });
                     });
}

void CpuBackend::grouped_gemm_activation_backward(Stream& stream, const GroupedGemm& product,
                                                  const ActivationGrad& after) {
    const DType dtype = after.dx.dtype;
    const i64 rows = after.dx.rows(), width = after.dx.cols() / activation_halves(after.kind);
    MOESAIC_ASSERT(!product.c.data && !product.accumulate && !after.dy.data && after.rows_per_group.empty(),
                   "the product gives dy and the groups");
    if (cpu::any_bf16(product.a, product.b, after.x) || product.a.cols() == 0 ||
        after.kind == ActivationKind::prelu || by_library(dtype))
        return cpu::grouped_gemm_activation_backward_in_turn(*this, stream, product, after);
    check_product(product, rows, width, dtype, 1);
    expect(after.dx, dtype, "activation dx");
    check_activation(after, rows, width, product.b.rows(), dtype);
    run_with_numbers(
        stream, product.rows_per_group, [this, product, after, width](std::span<const i64> rows_per_group) {
            with_real(after.dx.dtype, [&](auto element) {
                using Real = decltype(element);
                const ActivationGradWork<Real> work(after);
                GroupedProduct<Real> groups = grouped_product<Real>(product, rows_per_group, width);
                groups.work = &work;
                multiply_groups(threads_, groups);
            });
        });
}

}  // namespace moesaic
