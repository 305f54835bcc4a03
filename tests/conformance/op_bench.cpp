#include "tests/conformance/op_bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/bfloat16.h"

namespace moesaic::conformance {

namespace {

DType dtype_of(Storage storage, DType stored) {
    switch (storage) {
        case Storage::stored:
            return stored;
        case Storage::real:
            return accumulation_type(stored);
        case Storage::f64:
            return DType::f64;
        case Storage::int32:
            return DType::int32;
        case Storage::int64:
            return DType::int64;
    }
    return stored;
}

template <class F>
void with_element(DType dtype, F&& f) {
    switch (dtype) {
        case DType::f64:
            return f(double{});
        case DType::f32:
            return f(float{});
        case DType::bf16:
            return f(BFloat16{});
        case DType::int32:
            return f(i32{});
        default:
            return f(i64{});
    }
}

}  // namespace

std::vector<DType> types_of(const OpCase& op_case, DType stored) {
    std::vector<DType> types;
    for (const Buffer& buffer : op_case.buffers) types.push_back(dtype_of(buffer.storage, stored));
    return types;
}

std::vector<std::vector<DType>> bf16_types(const OpCase& op_case) {
    const std::vector<DType> all = types_of(op_case, DType::bf16), none = types_of(op_case, DType::f32);
    std::vector<std::vector<DType>> choices{all};
    for (std::size_t i = 0; op_case.mixes && i < all.size(); ++i) {
        if (all[i] != DType::bf16) continue;
        choices.push_back(all);
        choices.back()[i] = DType::f32;
        choices.push_back(none);
        choices.back()[i] = DType::bf16;
    }
    return choices;
}

double get(ConstTensorView view, i64 i) {
    double value = 0;
    with_element(view.dtype, [&](auto element) {
        const auto stored = view.as<decltype(element)>()[i];
        if constexpr (std::is_same_v<decltype(element), BFloat16>) {
            value = static_cast<double>(widened(stored));
        } else {
            value = static_cast<double>(stored);
        }
    });
    return value;
}

void set(TensorView view, i64 i, double value) {
    with_element(view.dtype, [&](auto element) {
        if constexpr (std::is_same_v<decltype(element), BFloat16>) {
            view.as<BFloat16>()[i] = to_bfloat16(value);
        } else {
            view.as<decltype(element)>()[i] = static_cast<decltype(element)>(value);
        }
    });
}

Bench::Bench(const OpCase& op_case, const std::vector<DType>& types, std::unique_ptr<Backend> back_end,
             i64 first)
    : backend(std::move(back_end)), stream(backend->make_stream("compute")) {
    for (std::size_t buffer = 0; buffer < types.size(); ++buffer) {
        const Shape shape = op_case.buffers[buffer].shape;
        tensors.push_back(backend->allocate({first + shape.elements()}, types[buffer]));
        views.push_back(tensors.back().view().flat(first, shape.elements()).reshaped(shape));
        fill(views.back(), op_case.buffers[buffer].values);
    }
}

void Bench::fill(TensorView view, const std::vector<double>& values) {
    for (i64 i = 0; i < view.elements(); ++i) set(view, i, values[at(i)]);
}

Values Bench::values() const {
    Values all;
    for (const TensorView& view : views) {
        all.emplace_back();
        for (i64 i = 0; i < view.elements(); ++i) all.back().push_back(get(view, i));
    }
    return all;
}

void Bench::run(const OpCase& op_case) {
    op_case.run(*backend, *stream, views);
    stream->synchronize();
}

void Bench::run_split(const OpCase& op_case, i64 first, i64 rows) {
    for (const auto& [begin, end] : {std::pair<i64, i64>{0, first}, {first, rows}}) {
        std::vector<TensorView> slices = views;
        for (std::size_t i = 0; i < slices.size(); ++i) {
            if (op_case.buffers[i].by_row) slices[i] = slices[i].slice_rows(begin, end - begin);
        }
        op_case.run(*backend, *stream, slices);
    }
    stream->synchronize();
}

void expect_same_bits(const OpCase& op_case, const Bench& have, const Bench& want, const char* what) {
    for (std::size_t buffer = 0; buffer < want.views.size(); ++buffer) {
        const auto bytes = static_cast<std::size_t>(want.views[buffer].bytes());
        EXPECT_TRUE(bytes == 0 || std::memcmp(have.views[buffer].data, want.views[buffer].data, bytes) == 0)
            << op_case.name << ": " << what << " changes " << op_case.buffers[buffer].name;
    }
}

double allowed_apart(const OpCase& op_case, DType stored, DType type, double want, double largest) {
    if (type == DType::int32 || type == DType::int64) return 0;
    const bool rounds_inside = op_case.products == Products::round_inside || op_case.in_turn;
    // Terms of about 1 may cancel.
    return (type == DType::bf16 ? 2.0 / 256 * std::abs(want) : 0) + (rounds_inside ? 1e-6 : 0) +
           (stored == DType::bf16 && rounds_inside ? 1.0 / 256 : 1e-5) * std::max(std::abs(want), largest);
}

double largest_of(const std::vector<double>& values) {
    double largest = 0;
    for (const double one : values)
        if (std::isfinite(one)) largest = std::max(largest, std::abs(one));
    return largest;
}

void expect_same_products(const OpCase& op_case, DType stored, const Bench& have, const Bench& want,
                          const char* what) {
    const Values here = have.values(), there = want.values();
    for (std::size_t buffer = 0; buffer < here.size(); ++buffer) {
        const double largest = largest_of(there[buffer]);
        for (std::size_t i = 0; i < here[buffer].size(); ++i) {
            const double one = there[buffer][i];
            ASSERT_LE(std::abs(here[buffer][i] - one),
                      allowed_apart(op_case, stored, want.views[buffer].dtype, one, largest))
                << op_case.name << ": " << what << ": " << op_case.buffers[buffer].name << "[" << i << "] is "
                << here[buffer][i] << ", not " << one;
        }
    }
}

void expect_same_but_products(const OpCase& op_case, DType stored, const Bench& have, const Bench& want,
                              const char* what) {
    if (op_case.products == Products::none) return expect_same_bits(op_case, have, want, what);
    expect_same_products(op_case, stored, have, want, what);
}

void expect_plain_loops(const OpCase& op_case, const Values& before, const Values& have, DType dtype) {
    Values want = before;
    op_case.reference(want);
    const double tolerance = dtype == DType::f32 ? op_case.tolerance_f32 : op_case.tolerance_f64;
    for (std::size_t buffer = 0; buffer < want.size(); ++buffer) {
        for (std::size_t i = 0; i < want[buffer].size(); ++i) {
            const double error = std::abs(have[buffer][i] - want[buffer][i]);
            ASSERT_LE(error, tolerance * (1 + std::abs(want[buffer][i])))
                << op_case.name << ": " << op_case.buffers[buffer].name << "[" << i << "] is "
                << have[buffer][i] << ", not " << want[buffer][i];
        }
    }
}

}  // namespace moesaic::conformance
