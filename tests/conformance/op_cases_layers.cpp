// Cases of the dense layers' operations.
#include <cmath>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

constexpr double kEps = 1e-5;

std::vector<double> inverse_rms_of(const std::vector<double>& x, i64 extent) {
    std::vector<double> inverse(x.size() / at(extent));
    for (std::size_t row = 0; row < inverse.size(); ++row) {
        double squares = 0;
        for (std::size_t i = 0; i < at(extent); ++i)
            squares += x[row * at(extent) + i] * x[row * at(extent) + i];
        inverse[row] = 1 / std::sqrt(squares / static_cast<double>(extent) + kEps);
    }
    return inverse;
}

void append_norm(std::vector<OpCase>& cases, i64 rows, i64 groups, i64 extent) {
    const Shape shape{rows, groups * extent};
    cases.push_back(
        {.name = fmt::format("rms_norm {}x{}x{}", rows, groups, extent),
         .buffers = {by_row(normal("x", shape)), normal("weight", {extent}), by_row(output("y", shape)),
                     by_row(real(output("inverse_rms", {rows, groups})))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.rms_norm(s, {.x = v[0], .weight = v[1], .y = v[2], .inverse_rms = v[3], .eps = kEps});
             },
         .reference =
             [=](Values& v) {
                 v[3] = inverse_rms_of(v[0], extent);
                 for (std::size_t i = 0; i < v[0].size(); ++i) {
                     v[2][i] = v[1][i % at(extent)] * v[0][i] * v[3][i / at(extent)];
                 }
             },
         .tolerance_f32 = 3e-6});
}

void norm_grad_reference(Values& v, i64 extent, bool accumulate, std::size_t dx) {
    const std::vector<double> dy = v[3];
    const auto n = at(extent);
    for (std::size_t row = 0; row < v[2].size(); ++row) {
        double share = 0;
        for (std::size_t i = row * n; i < (row + 1) * n; ++i) share += v[1][i % n] * dy[i] * v[0][i];
        for (std::size_t i = row * n; i < (row + 1) * n; ++i) {
            const double inverse = v[2][row];
            const double value = inverse * v[1][i % n] * dy[i] -
                                 v[0][i] * share * inverse * inverse * inverse / static_cast<double>(extent);
            v[dx][i] = accumulate ? v[dx][i] + value : value;
            v[4][i % n] += dy[i] * v[0][i] * inverse;
        }
    }
}

void append_norm_grad(std::vector<OpCase>& cases, i64 rows, i64 groups, i64 extent, const std::string& kind) {
    const Shape shape{rows, groups * extent};
    const bool accumulate = kind == "accumulate", in_place = kind == "in place";
    const std::size_t dx = in_place ? 3 : 5;
    const Buffer x = normal("x", shape);
    cases.push_back(
        {.name = fmt::format("rms_norm_backward {}x{}x{} {}", rows, groups, extent, kind),
         .buffers = {by_row(x), normal("weight", {extent}),
                     by_row(real(filled("inverse_rms", {rows, groups}, inverse_rms_of(x.values, extent)))),
                     by_row(written(normal("dy", shape))), written(real(normal("d_weight", {extent}))),
                     by_row(written(normal("dx", shape)))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.rms_norm_backward(s, {.x = v[0],
                                         .weight = v[1],
                                         .inverse_rms = v[2],
                                         .dy = v[3],
                                         .dx = v[dx],
                                         .d_weight = v[4],
                                         .accumulate_dx = accumulate});
             },
         .reference = [=](Values& v) { norm_grad_reference(v, extent, accumulate, dx); },
         .gpu_row_unit = 256,
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor y = b.allocate(v[0].shape, DType::f64), inverse = b.allocate(v[2].shape, DType::f64);
                 b.rms_norm(s, {.x = v[0], .weight = v[1], .y = y, .inverse_rms = inverse, .eps = kEps});
                 return dot(s, y, v[3]);
             },
         .gradients = {{0, dx, accumulate}, {1, 4, true}}});
}

struct RopeSizes {
    i64 rows, heads, head_dim, seq_len, row_stride;
};

Rope rope_of(const RopeSizes& sizes, const TensorView& x, ConstTensorView cosine, ConstTensorView sine,
             bool inverse) {
    TensorView heads = x;  // the rows' first columns
    heads.shape = {x.rows(), sizes.heads * sizes.head_dim};
    return {.x = heads,
            .row_stride = sizes.row_stride,
            .heads = sizes.heads,
            .head_dim = sizes.head_dim,
            .seq_len = sizes.seq_len,
            .cosine = cosine,
            .sine = sine,
            .inverse = inverse};
}

void rope_reference(Values& v, const RopeSizes& sizes, bool inverse) {
    const i64 half = sizes.head_dim / 2;
    for (i64 t = 0; t < sizes.rows; ++t) {
        for (i64 head = 0; head < sizes.heads; ++head) {
            for (i64 i = 0; i < half; ++i) {
                const double c = v[1][at(t % sizes.seq_len * half + i)];
                const double s = v[2][at(t % sizes.seq_len * half + i)] * (inverse ? -1 : 1);
                double& lower = v[0][at(t * sizes.row_stride + head * sizes.head_dim + i)];
                double& upper = v[0][at(t * sizes.row_stride + head * sizes.head_dim + i + half)];
                const double rotated = lower * c - upper * s;
                upper = upper * c + lower * s;
                lower = rotated;
            }
        }
    }
}

void append_rope(std::vector<OpCase>& cases, const RopeSizes& sizes, bool inverse) {
    const i64 half = sizes.head_dim / 2;
    Buffer cosine = real(normal("angle", {sizes.seq_len, half}, 3)), sine = cosine;
    for (double& angle : cosine.values) angle = std::cos(angle);
    for (double& angle : sine.values) angle = std::sin(angle);
    const Shape shape{sizes.rows, sizes.row_stride};
    OpCase rope{
        .name = fmt::format("rope{} {}x{}x{}", inverse ? " inverse" : "", sizes.rows, sizes.heads,
                            sizes.head_dim),
        .buffers = {by_row(written(normal("x", shape))), cosine, sine, by_row(normal("input", shape))},
        .run = [=](Backend& b, Stream& s, Views v) { b.rope(s, rope_of(sizes, v[0], v[1], v[2], inverse)); },
        .reference = [=](Values& v) { rope_reference(v, sizes, inverse); },
        .tolerance_f32 = 1e-6,
        .row_unit = sizes.seq_len};
    if (inverse) {
        rope.objective = [=](Backend& b, Stream& s, Views v) {
            Tensor y = b.allocate(v[3].shape, DType::f64);
            b.copy(s, v[3], y);
            b.rope(s, rope_of(sizes, y, v[1], v[2], false));
            return dot(s, y, v[0]);
        };
        rope.gradients = {{3, 0}};
    }
    cases.push_back(std::move(rope));
}

void append_embedding(std::vector<OpCase>& cases, i64 tokens, i64 vocabulary, i64 width) {
    const std::string size = fmt::format(" {} of {}x{}", tokens, vocabulary, width);
    const Buffer index = by_row(integers("index", {tokens}, 0, vocabulary));
    cases.push_back(
        {.name = "embedding" + size,
         .buffers = {normal("table", {vocabulary, width}), index, by_row(output("y", {tokens, width}))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.embedding(s, {.table = v[0], .index = v[1], .y = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (std::size_t i = 0; i < v[2].size(); ++i) {
                     const auto token = static_cast<std::size_t>(v[1][i / at(width)]);
                     v[2][i] = v[0][token * at(width) + i % at(width)];
                 }
             },
         .tolerance_f32 = 0,
         .tolerance_f64 = 0});
    cases.push_back(
        {.name = "embedding_backward" + size,
         .buffers = {index, by_row(normal("dy", {tokens, width})),
                     written(real(normal("d_table", {vocabulary, width}))),
                     normal("table", {vocabulary, width})},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.embedding_backward(s, {.index = v[0], .dy = v[1], .d_table = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (std::size_t i = 0; i < v[1].size(); ++i) {
                     const auto token = static_cast<std::size_t>(v[0][i / at(width)]);
                     v[2][token * at(width) + i % at(width)] += v[1][i];
                 }
             },
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor y = b.allocate(v[1].shape, DType::f64);
                 b.embedding(s, {.table = v[3], .index = v[0], .y = y});
                 return dot(s, y, v[1]);
             },
         .gradients = {{3, 2, true}}});
}

}  // namespace

void append_layer_cases(std::vector<OpCase>& cases) {
    struct NormSizes {
        i64 rows, groups, extent;
    };
    for (const NormSizes& sizes : {NormSizes{0, 1, 16},
                                   {1, 1, 1},
                                   {5, 1, 19},
                                   {4, 3, 8},
                                   {3, 2, 64},
                                   {270, 1, 130},
                                   {2, 1, 1100},
                                   {3, 1, 1203},
                                   {1, 1, 8404},
                                   {2, 1, 8501}}) {
        append_norm(cases, sizes.rows, sizes.groups, sizes.extent);
        for (const char* kind : {"overwrite", "accumulate", "in place"}) {
            append_norm_grad(cases, sizes.rows, sizes.groups, sizes.extent, kind);
        }
    }
    for (const bool inverse : {false, true}) {
        append_rope(cases, {0, 2, 8, 4, 16}, inverse);
        append_rope(cases, {12, 3, 10, 4, 37}, inverse);
        append_rope(cases, {10, 1, 64, 5, 64}, inverse);
        append_rope(cases, {170, 4, 64, 17, 300}, inverse);
        append_rope(cases, {6, 2, 16, 3, 35}, inverse);
    }
    append_embedding(cases, 0, 5, 8);
    append_embedding(cases, 9, 4, 7);
    append_embedding(cases, 700, 50, 70);
    append_embedding(cases, 300, 2, 64);
    append_embedding(cases, 12, 5, 1100);
}

}  // namespace moesaic::conformance
