#include "launch/bench/gemm_problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/bench/layer_problem.h"
#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

constexpr i64 kMostMultiplications = i64{1} << 26;
constexpr i64 kCheckedLines = 16;

std::size_t at(i64 index) {
    return static_cast<std::size_t>(index);
}

double get(ConstTensorView view, i64 i) {
    if (view.dtype == DType::f64) return view.as<double>()[i];
    if (view.dtype == DType::bf16) return static_cast<double>(widened(view.as<BFloat16>()[i]));
    return static_cast<double>(view.as<float>()[i]);
}

/// Uniform in [-scale, scale); returns what was stored.
std::vector<double> fill(TensorView view, std::string_view name, double scale) {
    const Philox random(kBenchSeed, std::string(name));
    std::vector<double> values(at(view.elements()));
    for (i64 i = 0; i < view.elements(); ++i) {
        const double value = scale * (2 * random.uniform(static_cast<u64>(i)) - 1);
        if (view.dtype == DType::f64) view.as<double>()[i] = value;
        if (view.dtype == DType::f32) view.as<float>()[i] = static_cast<float>(value);
        if (view.dtype == DType::bf16) view.as<BFloat16>()[i] = to_bfloat16(value);
        values[at(i)] = get(view, i);
    }
    return values;
}

}  // namespace

GemmProblem::GemmProblem(Backend& backend, Stream& stream, const GemmSize& size, DType dtype)
    : backend_(backend), stream_(stream), size_(size) {
    const i64 mean = sums_over_rows() ? size.k : size.m;
    rows_ = size.groups > 0 ? uneven_rows(size.groups, mean) : std::vector<i64>{mean};
    allocate(dtype);
    const double scale = 1 / std::sqrt(static_cast<double>(size.k));
    a_values_ = fill(a_, "a", 1);
    b_values_ = fill(b_, "b", scale);
    if (size.packed) pack_weight();
}

void GemmProblem::allocate(DType dtype) {
    const auto& [layout, unused, m, n, k, packed] = size_;
    const i64 rows = std::accumulate(rows_.begin(), rows_.end(), i64{0}), count = groups();
    if (sums_over_rows()) {
        a_ = backend_.allocate({rows, m}, dtype);
        b_ = backend_.allocate({rows, n}, dtype);
        c_ = backend_.allocate({count, m, n}, size_.groups > 0 ? DType::f64 : accumulation_type(dtype));
    } else {
        a_ = backend_.allocate({rows, k}, dtype);
        b_ = backend_.allocate(layout == "NT" ? Shape{count, n, k} : Shape{count, k, n}, dtype);
        c_ = backend_.allocate({rows, n}, dtype);
    }
    backend_.zero(stream_, c_);
}

void GemmProblem::pack_weight() {
    const PackedElements elements = backend_.packed_elements(b_.shape(), b_.dtype());
    const bool transposed = size_.layout == "NT";
    copy_ = backend_.allocate({transposed ? elements.transposed : elements.plain}, b_.dtype());
    backend_.pack(stream_, {.weight = b_,
                            .transposed = transposed ? copy_.view() : TensorView(),
                            .plain = transposed ? TensorView() : copy_.view()});
}

void GemmProblem::run() {
    ++runs_;
    const auto matrix = [](TensorView group) { return group.reshaped({group.shape[1], group.shape[2]}); };
    const ConstTensorView packed = copy_ ? copy_.view() : ConstTensorView();
    const bool trans_b = size_.layout == "NT";
    if (size_.groups > 0 && sums_over_rows()) {
        backend_.grouped_gemm_weight_grad(stream_, {.a = a_, .b = b_, .c = c_, .rows_per_part = rows_});
    } else if (size_.groups > 0) {
        backend_.grouped_gemm(
            stream_,
            {.a = a_, .b = b_, .c = c_, .rows_per_group = rows_, .trans_b = trans_b, .packed_b = packed});
    } else if (sums_over_rows()) {
        backend_.gemm(stream_, {.a = a_, .b = b_, .c = matrix(c_), .trans_a = true});
    } else {
        backend_.gemm(stream_, {.a = a_, .b = matrix(b_), .c = c_, .trans_b = trans_b, .packed_b = packed});
    }
}

double GemmProblem::flops() const {
    return 2.0 * static_cast<double>(groups() * size_.m) * static_cast<double>(size_.n) *
           static_cast<double>(size_.k);
}

double GemmProblem::value(i64 group, i64 first, i64 inner, i64 row, i64 column) const {
    const auto& [layout, unused, m, n, k, packed] = size_;
    double sum = 0;
    for (i64 p = 0; p < inner; ++p) {
        if (sums_over_rows()) {
            sum += a_values_[at((first + p) * m + row)] * b_values_[at((first + p) * n + column)];
        } else {
            const i64 element = layout == "NT" ? column * k + p : p * n + column;
            sum += a_values_[at((first + row) * k + p)] * b_values_[at(group * n * k + element)];
        }
    }
    return sum;
}

i64 GemmProblem::count_wrong() const {
    const double tolerance = a_.dtype() == DType::f32 ? 2e-5 : a_.dtype() == DType::bf16 ? 1e-2 : 1e-12;
    const bool every = flops() <= 2.0 * static_cast<double>(kMostMultiplications);
    const double times = sums_over_rows() && size_.groups > 0 ? static_cast<double>(runs_) : 1;
    i64 wrong = 0, first = 0;
    for (i64 group = 0; group < groups(); ++group) {
        const i64 own = rows_[at(group)], inner = sums_over_rows() ? own : size_.k;
        const i64 rows = sums_over_rows() ? size_.m : own;
        const i64 first_row = sums_over_rows() ? group * size_.m : first;
        const auto compare = [&](i64 row, i64 column) {
            const double want = times * value(group, first, inner, row, column);
            const double have = get(c_, (first_row + row) * size_.n + column);
            if (!(std::abs(have - want) <= tolerance * (times + std::abs(want)))) ++wrong;
        };
        std::vector<bool> compared(at(rows), every);
        const auto line = [](i64 number, i64 lines) { return number * (lines - 1) / (kCheckedLines - 1); };
        for (i64 i = 0; i < std::min(rows, kCheckedLines); ++i) compared[at(line(i, rows))] = true;
        for (i64 row = 0; row < rows; ++row)
            for (i64 column = 0; compared[at(row)] && column < size_.n; ++column) compare(row, column);
        for (i64 j = 0; j < std::min(size_.n, kCheckedLines); ++j)
            for (i64 row = 0; row < rows; ++row)
                if (!compared[at(row)]) compare(row, line(j, size_.n));
        first += own;
    }
    return wrong;
}

}  // namespace moesaic
