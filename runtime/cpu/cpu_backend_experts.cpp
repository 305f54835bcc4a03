// Products by groups of rows and the activations between them: what experts and feed-forwards compute.
#include "runtime/base/host_memory.h"
#include "runtime/cpu/activation.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/grouped_gemm.h"
#include "runtime/cpu/product_operands.h"
#include "runtime/cpu/products_in_turn.h"

namespace moesaic {

using cpu::data_or_null;
using cpu::element_at;
using cpu::elements_of;
using cpu::expect;
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
void check_rows(ConstTensorView operand, ConstTensorView index, i64 rows, i64 columns,
                std::string_view name) {
    if (index.data) expect(index, rows, 1, DType::int32, "row index");
    expect(operand, index.data ? operand.rows() : rows, columns, operand.dtype, name);
}

/// As given, for a result [rows, width] that may be kept nowhere. Returns the type that it is computed in.
DType check_product(const GroupedGemm& product, i64 rows, i64 width, i64 halves) {
    const i64 inner = product.a.cols(), groups = product.b.rows();
    check_rows(product.a, product.a_rows, rows, inner, "grouped_gemm a");
    expect(product.b, groups, inner * width, product.b.dtype, "grouped_gemm b");
    check_groups(product.rows_per_group, groups, rows);
    cpu::check_packed(product.packed_b, product.b.dtype, groups, inner, width, halves);
    return cpu::product_type({product.a, product.b}, "grouped_gemm");
}

template <class Real>
GroupedProduct<Real> grouped_product(const GroupedGemm& product, std::span<const i64> rows_per_group,
                                     i64 width) {
    return {.rows_per_group = rows_per_group,
            .n = width,
            .p = product.a.cols(),
            .a = elements_of<Real>(product.a),
            .b = elements_of<Real>(product.b),
            .trans_b = product.trans_b,
            .accumulate = product.accumulate,
            .packed_b = elements_of<Real>(product.packed_b),
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

/// A block of a product's result, and where it belongs among the rows of x and y (or dx and dy).
template <class Real>
cpu::ActivationBlock activation_block(ActivationKind kind, const ResultBlock<Real>& block, ConstTensorView x,
                                      double slope) {
    const i64 width = x.cols() / activation_halves(kind);
    return {kind, x.dtype, block.rows, block.columns, x.cols(), width, width, slope};
}

/// Where x and y are bf16, both are written here, y from the rounded x; else the product has written x.
template <class Real>
class ActivationWork final : public BlockWork<Real> {
  public:
    ActivationWork(const Activation& operation, TensorView x)
        : operation_(operation), x_(x), streamed_(x.bytes() >= kBeyondCaches) {}
    void run(const ResultBlock<Real>& block) const override {
        const Activation& of = operation_;
        const cpu::ActivationBlock part =
            activation_block(of.kind, block, x_, cpu::slope_of(of.slope, block.product));
        void* const x = element_at(x_, block.first_row, block.first_column);
        void* const y = element_at(of.y, block.first_row, block.first_column);
        if constexpr (std::is_same_v<Real, float>) {
            if (x_.dtype == DType::bf16)
                return cpu::round_and_activate(part, {block.c, block.c_row_stride, block.c_half, streamed_},
                                               static_cast<BFloat16*>(x), static_cast<BFloat16*>(y));
        }
        cpu::activate(part, x, y);
    }

  private:
    const Activation& operation_;
    TensorView x_;  // operation_.x
    bool streamed_;
};

/// Where dx is bf16, dy is rounded first.
template <class Real>
class ActivationGradWork final : public BlockWork<Real> {
  public:
    explicit ActivationGradWork(const ActivationGrad& operation) : operation_(operation) {}
    void run(const ResultBlock<Real>& block) const override {
        const ActivationGrad& of = operation_;
        cpu::ActivationBlock part = activation_block(of.kind, block, of.dx, 0);
        const void* const x = element_at(of.x, block.first_row, block.first_column);
        void* const dx = element_at(of.dx, block.first_row, block.first_column);
        if constexpr (std::is_same_v<Real, float>) {
            if (of.dx.dtype == DType::bf16)
                return cpu::round_and_activate_backward(part, static_cast<const BFloat16*>(x),
                                                        {block.c, block.c_row_stride},
                                                        static_cast<BFloat16*>(dx));
        }
        part.y_row_stride = block.c_row_stride;
        cpu::activate_backward(part, x, block.c, dx);
    }

  private:
    const ActivationGrad& operation_;
};

}  // namespace

void CpuBackend::grouped_gemm(Stream& stream, const GroupedGemm& operation) {
    const i64 width = operation.c.cols();
    cpu::product_type({operation.c, operation.a}, "grouped_gemm");
    const DType real = check_product(operation, operation.c.rows(), width, 1);
    run_with_numbers(stream, operation.rows_per_group,
                     [this, operation, width, real](std::span<const i64> rows_per_group) {
                         with_real(real, [&](auto element) {
                             using Real = decltype(element);
                             cpu::with_result<Real>(operation.c, operation.accumulate,
                                                    [&](const cpu::ProductResult<Real>& result) {
                                                        GroupedProduct<Real> groups = grouped_product<Real>(
                                                            operation, rows_per_group, width);
                                                        groups.c = result.c;
                                                        groups.rounded_c = result.rounded;
                                                        groups.work = result.work;
                                                        multiply_groups(threads_, groups, library_);
                                                    });
                         });
                     });
}

void CpuBackend::grouped_gemm_weight_grad(Stream& stream, const GroupedGemmWeightGrad& operation) {
    const auto& [a, b, c, rows_per_part, a_rows, b_rows, from_zero] = operation;
    const i64 height = a.cols(), width = b.cols(), groups = c.rows();
    const DType real = cpu::product_type({a, b}, "grouped_gemm_weight_grad");
    const i64 rows = a_rows.data ? a_rows.rows() : a.rows();
    check_rows(a, a_rows, rows, height, "grouped_gemm_weight_grad a");
    check_rows(b, b_rows, rows, width, "grouped_gemm_weight_grad b");
    expect(c, groups, height * width, adds_to_gradients() && c.dtype == real ? real : DType::f64,
           "grouped_gemm_weight_grad c");
    const i64 parts = groups > 0 ? static_cast<i64>(rows_per_part.size()) / groups : 0;
    check_groups(rows_per_part, groups * parts, rows);
    run_with_numbers(stream, rows_per_part,
                     [this, operation, groups, height, width, real](std::span<const i64> numbers) {
                         with_real(real, [&](auto element) {
                             using Real = decltype(element);
                             accumulate_weight_grads<Real>(threads_,
                                                           {.rows_per_part = numbers,
                                                            .groups = groups,
                                                            .m = height,
                                                            .n = width,
                                                            .a = elements_of<Real>(operation.a),
                                                            .b = elements_of<Real>(operation.b),
                                                            .c = cpu::sums_in<Real>(operation.c),
                                                            .a_rows = data_or_null<i32>(operation.a_rows),
                                                            .b_rows = data_or_null<i32>(operation.b_rows),
                                                            .from_zero = operation.from_zero},
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
                         if (learnt)  // first: dx may take x's place
                             share(std::ssize(rows_per_group), operation.x.elements(),
                                   [&](Range part) { cpu::slope_grad(operation, rows_per_group, part); });
                         share(rows, operation.x.cols(),
                               [&](Range part) { cpu::activation_grad(operation, rows_per_group, part); });
                     });
}

void CpuBackend::grouped_gemm_activation(Stream& stream, const GroupedGemm& product,
                                         const Activation& after) {
    if (product.accumulate || by_library(product.c.dtype))
        return cpu::grouped_gemm_activation_in_turn(*this, stream, product, after);
    const i64 rows = product.c.rows(), halves = activation_halves(after.kind);
    MOESAIC_ASSERT(!after.x.data && after.rows_per_group.empty(), "the product gives x and the groups");
    Activation whole = after;
    whole.x = product.c;
    cpu::product_type({product.c, product.a}, "grouped_gemm");
    const DType real = check_product(product, rows, product.c.cols(), halves);
    expect(after.y, rows, product.c.cols() / halves, product.c.dtype, "activation y");
    check_activation(whole, rows, after.y.cols(), product.b.rows(), product.c.dtype);
    run_with_numbers(stream, product.rows_per_group,
                     [this, product, whole, halves, real](std::span<const i64> rows_per_group) {
                         with_real(real, [&](auto element) {
                             using Real = decltype(element);
                             const ActivationWork<Real> work(whole, product.c);
                             GroupedProduct<Real> groups =
                                 grouped_product<Real>(product, rows_per_group, product.c.cols());
                             if (product.c.dtype == dtype_of<Real>()) groups.c = product.c.as<Real>();
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
    if (after.kind == ActivationKind::prelu || by_library(dtype))
        return cpu::grouped_gemm_activation_backward_in_turn(*this, stream, product, after);
    cpu::product_type({after.dx, product.a}, "grouped_gemm");
    const DType real = check_product(product, rows, width, 1);
    check_activation(after, rows, width, product.b.rows(), dtype);
    run_with_numbers(stream, product.rows_per_group,
                     [this, product, after, width, real](std::span<const i64> rows_per_group) {
                         with_real(real, [&](auto element) {
                             using Real = decltype(element);
                             const ActivationGradWork<Real> work(after);
                             GroupedProduct<Real> groups =
                                 grouped_product<Real>(product, rows_per_group, width);
                             groups.work = &work;
                             multiply_groups(threads_, groups);
                         });
                     });
}

}  // namespace moesaic
