// Cases of the activations, alone and inside the products before them.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

struct Derivative {
    double value, by_gate, by_up;
};

/// One element by the definition.
Derivative activated(ActivationKind kind, double x, double up, double slope) {
    switch (kind) {
        case ActivationKind::swiglu: {
            const double share = 1 / (1 + std::exp(-x));
            return {x * share * up, up * share * (1 + x * (1 - share)), x * share};
        }
        case ActivationKind::gelu: {
            const double share = std::erfc(-x / std::sqrt(2.0)) / 2;
            return {x * share, share + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)), 0};
        }
        case ActivationKind::relu:
            return {x > 0 ? x : 0, x > 0 ? 1.0 : 0.0, 0};
        case ActivationKind::prelu:
            return {x > 0 ? x : slope * x, x > 0 ? 1.0 : slope, 0};
    }
    return {};
}

i64 sum_of(const std::vector<i64>& counts) {
    return std::accumulate(counts.begin(), counts.end(), i64{0});
}

std::size_t group_of(const std::vector<i64>& counts, i64 row) {
    std::size_t group = 0;
    while (row >= counts[group]) row -= counts[group++];
    return group;
}

/// A kind with the groups' sizes and the hidden columns it is applied to.
struct Sizes {
    ActivationKind kind;
    std::vector<i64> counts;
    i64 width, inner = 0;

    [[nodiscard]] bool learnt() const { return kind == ActivationKind::prelu; }
    [[nodiscard]] i64 halves() const { return activation_halves(kind); }
    [[nodiscard]] i64 groups() const { return static_cast<i64>(counts.size()); }
    [[nodiscard]] std::string text() const {
        return fmt::format("{} {} rows in {} groups, {}x{}",
                           kActivations[static_cast<std::size_t>(kind)].name, sum_of(counts), groups(), width,
                           inner);
    }
    /// Of sums whose standard deviation is 4 at most: gated kinds multiply their rounding by other sums.
    [[nodiscard]] double weight_scale() const {
        return std::min(0.3, 4 / std::sqrt(static_cast<double>(std::max<i64>(inner, 1))));
    }
    /// The slopes of a learnt kind, else nothing that counts.
    [[nodiscard]] Buffer slopes() const { return normal("slope", {groups()}, 0.5); }
    [[nodiscard]] ConstTensorView slope(TensorView view) const {
        return learnt() ? ConstTensorView(view) : ConstTensorView();
    }
    [[nodiscard]] std::span<const i64> groups_of_slopes() const {
        return learnt() ? std::span<const i64>(counts) : std::span<const i64>();
    }
    void forward(const std::vector<double>& x, const std::vector<double>& slope,
                 std::vector<double>& y) const {
        for (i64 i = 0; i < sum_of(counts) * width; ++i) {
            const i64 gate = i / width * halves() * width + i % width;
            y[at(i)] = activated(kind, x[at(gate)], x[at(gate + (halves() - 1) * width)],
                                 slope[group_of(counts, i / width)])
                           .value;
        }
    }
    void backward(const std::vector<double>& x, const std::vector<double>& slope,
                  const std::vector<double>& dy, std::vector<double>& dx,
                  std::vector<double>& d_slope) const {
        for (i64 i = 0; i < sum_of(counts) * width; ++i) {
            const i64 gate = i / width * halves() * width + i % width, up = gate + (halves() - 1) * width;
            const std::size_t group = group_of(counts, i / width);
            const Derivative one = activated(kind, x[at(gate)], x[at(up)], slope[group]);
            if (halves() == 2) dx[at(up)] = dy[at(i)] * one.by_up;
            dx[at(gate)] = dy[at(i)] * one.by_gate;
            if (learnt()) d_slope[group] += dy[at(i)] * std::min(x[at(gate)], 0.0);
        }
    }
};

Buffer f64_sums(std::string name, Shape shape) {
    Buffer sums = normal(std::move(name), shape);
    sums.storage = Storage::f64;
    return written(sums);
}

/// The same backward where buffer `dx` is buffer `x`.
OpCase in_place(OpCase of, std::size_t x, std::size_t dx) {
    OpCase same = of;
    same.name += " in place";
    std::swap(same.buffers[x].written, same.buffers[dx].written);
    same.run = [run = of.run, x, dx](Backend& b, Stream& s, Views v) {
        std::vector<TensorView> views(v.begin(), v.end());
        views[dx] = views[x];
        run(b, s, views);
    };
    same.reference = [reference = of.reference, x, dx](Values& v) {
        const std::vector<double> untouched = v[dx];
        v[dx] = v[x];
        reference(v);
        v[x] = std::exchange(v[dx], untouched);
    };
    same.objective = nullptr;
    same.gradients = {};
    if (of.same_bits)
        same.same_bits = [simpler = of.same_bits, x, dx](Backend& b, Stream& s, Views v) {
            Tensor room = b.allocate(v[x].shape, v[x].dtype);
            b.copy(s, v[x], room);
            std::vector<TensorView> views(v.begin(), v.end());
            views[dx] = room;
            simpler(b, s, views);
            b.copy(s, room, v[x]);
            s.synchronize();
        };
    return same;
}

void append_activation(std::vector<OpCase>& cases, const Sizes& sizes, double scale) {
    const i64 rows = sum_of(sizes.counts);
    const Shape wide{rows, sizes.halves() * sizes.width}, shape{rows, sizes.width};
    const std::string size = fmt::format(" {} scale {}", sizes.text(), scale);
    const auto forward = [=](Backend& b, Stream& s, TensorView x, TensorView slope, TensorView y) {
        b.activation(s, {.kind = sizes.kind,
                         .x = x,
                         .y = y,
                         .slope = sizes.slope(slope),
                         .rows_per_group = sizes.groups_of_slopes()});
    };
    const i64 row_unit = sizes.learnt() ? 0 : 1;
    cases.push_back(
        {.name = "activation" + size,
         .buffers = {by_row(normal("x", wide, scale)), sizes.slopes(), by_row(output("y", shape))},
         .run = [=](Backend& b, Stream& s, Views v) { forward(b, s, v[0], v[1], v[2]); },
         .reference = [=](Values& v) { sizes.forward(v[0], v[1], v[2]); },
         .tolerance_f32 = 1e-6,
         .row_unit = row_unit});
    std::vector<GradientPair> gradients{{0, 3}};
    if (sizes.learnt()) gradients.push_back({1, 4, true});
    cases.push_back(
        {.name = "activation_backward" + size,
         .buffers = {by_row(normal("x", wide, scale)), sizes.slopes(), by_row(normal("dy", shape)),
                     by_row(output("dx", wide)), f64_sums("d_slope", {sizes.groups()})},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.activation_backward(s, {.kind = sizes.kind,
                                           .x = v[0],
                                           .dy = v[2],
                                           .dx = v[3],
                                           .slope = sizes.slope(v[1]),
                                           .rows_per_group = sizes.groups_of_slopes(),
                                           .d_slope = v[4]});
             },
         .reference = [=](Values& v) { sizes.backward(v[0], v[1], v[2], v[3], v[4]); },
         .tolerance_f32 = 1e-6,
         .row_unit = row_unit,
         .objective =
             [=](Backend& b, Stream& s, Views v) {
                 Tensor y = b.allocate(v[2].shape, DType::f64);
                 forward(b, s, v[0], v[1], y);
                 return dot(s, y, v[2]);
             },
         .gradients = gradients});
    cases.push_back(in_place(cases.back(), 0, 3));
}

/// The rows of a product's operand: b is W [N,P] with `trans_b`, else [P,N].
void multiply(const Sizes& sizes, i64 columns, bool trans_b, const Values& v, std::vector<double>& c) {
    for (i64 i = 0; i < sum_of(sizes.counts) * columns; ++i) {
        const i64 row = i / columns, column = i % columns, p = sizes.inner;
        const i64 first = static_cast<i64>(group_of(sizes.counts, row)) * columns * p;
        c[at(i)] = 0;
        for (i64 j = 0; j < p; ++j)
            c[at(i)] +=
                v[0][at(row * p + j)] * v[1][at(first + (trans_b ? column * p + j : j * columns + column))];
    }
}

void append_fused(std::vector<OpCase>& cases, const Sizes& sizes, bool packed) {
    const i64 rows = sum_of(sizes.counts) + 2, columns = sizes.halves() * sizes.width;
    cases.push_back(
        {.name = "grouped_gemm_activation " + sizes.text() + (packed ? " packed" : ""),
         .buffers = {normal("a", {rows, sizes.inner}),
                     normal("b", {sizes.groups(), columns, sizes.inner}, sizes.weight_scale()),
                     sizes.slopes(), output("c", {rows, columns}), output("y", {rows, sizes.width})},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 std::vector<i64> passing = sizes.counts;
                 const i64 copies =
                     packed ? b.packed_elements(v[1].shape, v[1].dtype, sizes.halves()).transposed : 0;
                 Tensor copy = b.allocate({copies}, v[1].dtype);
                 if (packed)
                     b.pack(s, {.weight = v[1], .transposed = copy, .plain = {}, .halves = sizes.halves()});
                 b.grouped_gemm_activation(
                     s,
                     {.a = v[0],
                      .b = v[1],
                      .c = v[3],
                      .rows_per_group = passing,
                      .trans_b = true,
                      .packed_b = packed ? copy.view() : TensorView()},
                     {.kind = sizes.kind, .x = {}, .y = v[4], .slope = sizes.slope(v[2])});
                 passing.assign(passing.size(), -1);
                 if (packed) s.synchronize();  // the copy goes
             },
         .reference =
             [=](Values& v) {
                 multiply(sizes, columns, true, v, v[3]);
                 sizes.forward(v[3], v[2], v[4]);
             },
         .tolerance_f32 = 1e-4,
         .tolerance_f64 = 5e-13,  // sums of kSeveralPieces terms in another order, and the activation of them
         .products = Products::sums,
         .row_unit = 0,
         .same_bits =
             [=](Backend& b, Stream& s, Views v) {
                 b.grouped_gemm(
                     s, {.a = v[0], .b = v[1], .c = v[3], .rows_per_group = sizes.counts, .trans_b = true});
                 b.activation(s, {.kind = sizes.kind,
                                  .x = v[3].slice_rows(0, rows - 2),
                                  .y = v[4].slice_rows(0, rows - 2),
                                  .slope = sizes.slope(v[2]),
                                  .rows_per_group = sizes.groups_of_slopes()});
                 s.synchronize();
             },
         .synchronizes = packed,
         .in_turn = true});
}

GroupedGemm product_before(const Sizes& sizes, Views v, TensorView c) {
    return {.a = v[0], .b = v[1], .c = c, .rows_per_group = sizes.counts};
}

/// <dy, activation(x)> of the operands of append_fused_grad().
double projected_forward(const Sizes& sizes, Backend& b, Stream& s, Views v) {
    const i64 rows = v[0].rows(), grouped = sum_of(sizes.counts);
    Tensor dy = b.allocate({rows, sizes.width}, v[3].dtype), y = b.allocate(dy.shape(), v[3].dtype);
    b.zero(s, dy);
    b.zero(s, y);
    b.grouped_gemm(s, product_before(sizes, v, dy));
    b.activation(s, {.kind = sizes.kind,
                     .x = v[3].slice_rows(0, grouped),
                     .y = y.slice_rows(0, grouped),
                     .slope = sizes.slope(v[2]),
                     .rows_per_group = sizes.groups_of_slopes()});
    return dot(s, y, dy);
}

void append_fused_grad(std::vector<OpCase>& cases, const Sizes& sizes) {
    const i64 rows = sum_of(sizes.counts) + 2;
    const Shape wide{rows, sizes.halves() * sizes.width};
    const auto product = [=](Views v, TensorView c) { return product_before(sizes, v, c); };
    std::vector<GradientPair> gradients;
    if (sizes.learnt()) gradients.push_back({2, 5, true});
    cases.push_back(
        {.name = "grouped_gemm_activation_backward " + sizes.text(),
         .buffers = {normal("a", {rows, sizes.inner}),
                     normal("b", {sizes.groups(), sizes.inner, sizes.width}, sizes.weight_scale()),
                     sizes.slopes(), normal("x", wide), written(normal("dx", wide)),
                     f64_sums("d_slope", {sizes.groups()})},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 std::vector<i64> passing = sizes.counts;
                 GroupedGemm operation = product(v, {});
                 operation.rows_per_group = passing;
                 b.grouped_gemm_activation_backward(s, operation,
                                                    {.kind = sizes.kind,
                                                     .x = v[3],
                                                     .dy = {},
                                                     .dx = v[4],
                                                     .slope = sizes.slope(v[2]),
                                                     .d_slope = v[5]});
                 passing.assign(passing.size(), -1);
             },
         .reference =
             [=](Values& v) {
                 std::vector<double> dy(at(rows * sizes.width));
                 multiply(sizes, sizes.width, false, v, dy);
                 sizes.backward(v[3], v[2], dy, v[4], v[5]);
             },
         .tolerance_f32 = 1e-4,
         .tolerance_f64 = 5e-13,  // sums of kSeveralPieces terms in another order, and the activation of them
         .products = Products::sums,
         .row_unit = 0,
         .objective = [=](Backend& b, Stream& s, Views v) { return projected_forward(sizes, b, s, v); },
         .gradients = gradients,
         .same_bits =
             [=](Backend& b, Stream& s, Views v) {
                 Tensor dy = b.allocate({rows, sizes.width}, v[3].dtype);
                 b.grouped_gemm(s, product(v, dy));
                 b.activation_backward(s, {.kind = sizes.kind,
                                           .x = v[3].slice_rows(0, rows - 2),
                                           .dy = dy.slice_rows(0, rows - 2),
                                           .dx = v[4].slice_rows(0, rows - 2),
                                           .slope = sizes.slope(v[2]),
                                           .rows_per_group = sizes.groups_of_slopes(),
                                           .d_slope = v[5]});
                 s.synchronize();
             },
         .in_turn = true});
    cases.push_back(in_place(cases.back(), 3, 4));
}

}  // namespace

void append_activation_cases(std::vector<OpCase>& cases) {
    for (const ActivationEntry& entry : kActivations) {
        for (const double scale : {1.0, 30.0}) {
            append_activation(cases, {entry.kind, {0, 0}, 8}, scale);
            append_activation(cases, {entry.kind, {1, 0, 3}, 19}, scale);
            append_activation(cases, {entry.kind, {30, 60}, 256}, scale);
        }
        append_activation(cases, {entry.kind, {1, 2}, 1100}, 1);
        for (const bool packed : {false, true}) {
            append_fused(cases, {entry.kind, {0, 0}, 5, 7}, packed);
            append_fused(cases, {entry.kind, {3, 0, 1}, 19, 9}, packed);
            append_fused(cases, {entry.kind, {40, 0, 7, 300}, 64, 48}, packed);
            append_fused(cases, {entry.kind, {1, 150}, 650, 33}, packed);  // several slices of columns
            append_fused(cases, {entry.kind, {5, 60}, 30, kSeveralPieces},
                         packed);  // several pieces of the inner extent
        }
        append_fused(cases, {entry.kind, {2, 1}, 5, 0}, false);
        append_fused_grad(cases, {entry.kind, {0, 0}, 5, 7});
        append_fused_grad(cases, {entry.kind, {3, 0, 1}, 19, 9});
        append_fused_grad(cases, {entry.kind, {40, 0, 7, 300}, 64, 48});
        append_fused_grad(cases, {entry.kind, {1, 150}, 650, 33});
        append_fused_grad(cases, {entry.kind, {5, 60}, 30, kSeveralPieces});
        append_fused_grad(cases, {entry.kind, {2, 1}, 5, 0});
    }
}

}  // namespace moesaic::conformance
