// Every case of the table on the CPU back end: against the plain loops, finite differences, and itself in
// other layouts.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/bfloat16.h"
#include "tests/conformance/op_cases.h"

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

/// The types of a case's buffers with `stored` for all that may be bf16.
std::vector<DType> types_of(const OpCase& op_case, DType stored) {
    std::vector<DType> types;
    for (const Buffer& buffer : op_case.buffers) types.push_back(dtype_of(buffer.storage, stored));
    return types;
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

/// A back end with the operands of one case, as they are before the call.
struct Bench {
    Bench(const OpCase& op_case, DType stored, int threads = 1,
          StreamMode mode = StreamMode::inline_execution, u64 seed = 0)
        : Bench(op_case, types_of(op_case, stored), threads, mode, seed) {}
    Bench(const OpCase& op_case, const std::vector<DType>& types, int threads = 1,
          StreamMode mode = StreamMode::inline_execution, u64 seed = 0)
        : backend(make_cpu_backend(threads, mode, seed)), stream(backend->make_stream("compute")) {
        for (std::size_t buffer = 0; buffer < types.size(); ++buffer) {
            tensors.push_back(backend->allocate(op_case.buffers[buffer].shape, types[buffer]));
            fill(tensors.back(), op_case.buffers[buffer].values);
        }
        for (Tensor& tensor : tensors) views.push_back(tensor.view());
    }
    static void fill(TensorView view, const std::vector<double>& values) {
        for (i64 i = 0; i < view.elements(); ++i) set(view, i, values[at(i)]);
    }
    Values values() const {
        Values all;
        for (const TensorView& view : views) {
            all.emplace_back();
            for (i64 i = 0; i < view.elements(); ++i) all.back().push_back(get(view, i));
        }
        return all;
    }
    void run(const OpCase& op_case) {
        op_case.run(*backend, *stream, views);
        stream->synchronize();
    }
    /// As two calls, the rows from `first` on after those before it.
    void run_split(const OpCase& op_case, i64 first, i64 rows) {
        for (const auto& [begin, end] : {std::pair<i64, i64>{0, first}, {first, rows}}) {
            std::vector<TensorView> slices = views;
            for (std::size_t i = 0; i < slices.size(); ++i) {
                if (op_case.buffers[i].by_row) slices[i] = slices[i].slice_rows(begin, end - begin);
            }
            op_case.run(*backend, *stream, slices);
        }
        stream->synchronize();
    }
    double objective(const OpCase& op_case) { return op_case.objective(*backend, *stream, views); }

    std::unique_ptr<Backend> backend;
    std::unique_ptr<Stream> stream;
    std::vector<Tensor> tensors;
    std::vector<TensorView> views;
};

void expect_same_bits(const OpCase& op_case, const Bench& have, const Bench& want, const char* what) {
    for (std::size_t buffer = 0; buffer < want.views.size(); ++buffer) {
        const auto bytes = static_cast<std::size_t>(want.views[buffer].bytes());
        EXPECT_TRUE(bytes == 0 || std::memcmp(have.views[buffer].data, want.views[buffer].data, bytes) == 0)
            << op_case.name << ": " << what << " changes " << op_case.buffers[buffer].name;
    }
}

class OpCases : public ::testing::TestWithParam<DType> {};
class PreciseOpCases : public ::testing::TestWithParam<DType> {};

TEST_P(PreciseOpCases, AgreeWithPlainLoops) {
    for (const OpCase& op_case : all_cases()) {
        Bench bench(op_case, GetParam());
        Values want = bench.values();
        op_case.reference(want);
        bench.run(op_case);
        const Values have = bench.values();
        const double tolerance = GetParam() == DType::f32 ? op_case.tolerance_f32 : op_case.tolerance_f64;
        for (std::size_t buffer = 0; buffer < want.size(); ++buffer) {
            for (std::size_t i = 0; i < want[buffer].size(); ++i) {
                const double error = std::abs(have[buffer][i] - want[buffer][i]);
                ASSERT_LE(error, tolerance * (1 + std::abs(want[buffer][i])))
                    << op_case.name << ": " << op_case.buffers[buffer].name << "[" << i << "] is "
                    << have[buffer][i] << ", not " << want[buffer][i];
            }
        }
    }
}

TEST_P(OpCases, KeepTheirBitsWithMoreThreads) {
    for (const OpCase& op_case : all_cases()) {
        Bench one(op_case, GetParam()), three(op_case, GetParam(), 3);
        one.run(op_case);
        three.run(op_case);
        expect_same_bits(op_case, three, one, "threads");
    }
}

TEST_P(OpCases, KeepTheirBitsWhenRowsAreSplit) {
    for (const OpCase& op_case : all_cases()) {
        if (op_case.row_unit == 0) continue;
        i64 rows = 0;
        for (const Buffer& buffer : op_case.buffers) rows = buffer.by_row ? buffer.shape.rows() : rows;
        for (const i64 first : {i64{0}, op_case.row_unit, rows / 2 / op_case.row_unit * op_case.row_unit}) {
            if (first > rows) continue;
            Bench whole(op_case, GetParam()), split(op_case, GetParam());
            whole.run(op_case);
            split.run_split(op_case, first, rows);
            expect_same_bits(op_case, split, whole, "splitting the rows");
        }
    }
}

TEST_P(OpCases, KeepTheirBitsOnDeferredStreams) {
    for (const OpCase& op_case : all_cases()) {
        Bench inline_bench(op_case, GetParam());
        Bench deferred(op_case, GetParam(), 1, StreamMode::deferred_shuffled, 5);
        const Bench untouched(op_case, GetParam());
        inline_bench.run(op_case);
        op_case.run(*deferred.backend, *deferred.stream, deferred.views);
        if (!op_case.synchronizes) expect_same_bits(op_case, deferred, untouched, "enqueueing alone");
        deferred.stream->synchronize();
        expect_same_bits(op_case, deferred, inline_bench, "deferring");
    }
}

TEST_P(OpCases, HaveTheBitsOfSimplerOperations) {
    int compared = 0;
    for (const OpCase& op_case : all_cases()) {
        if (!op_case.same_bits) continue;
        ++compared;
        Bench fused(op_case, GetParam(), 2), simple(op_case, GetParam());
        fused.run(op_case);
        op_case.same_bits(*simple.backend, *simple.stream, simple.views);
        expect_same_bits(op_case, fused, simple, "doing it at once");
    }
    EXPECT_GT(compared, 10);
}

TEST_P(OpCases, WriteOnlyTheirOutputs) {
    for (const OpCase& op_case : all_cases()) {
        Bench bench(op_case, GetParam());
        const Values before = bench.values();
        bench.run(op_case);
        const Values after = bench.values();
        for (std::size_t buffer = 0; buffer < before.size(); ++buffer) {
            if (op_case.buffers[buffer].written) continue;
            EXPECT_EQ(after[buffer], before[buffer]) << op_case.name << ": " << op_case.buffers[buffer].name;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Cpu, PreciseOpCases, ::testing::Values(DType::f32, DType::f64),
                         [](const auto& test) { return std::string(name_of(test.param)); });
INSTANTIATE_TEST_SUITE_P(Cpu, OpCases, ::testing::Values(DType::f32, DType::f64, DType::bf16),
                         [](const auto& test) { return std::string(name_of(test.param)); });

/// Which buffers of a case may be bf16 at once: all that are stored so, and, where types mix, each alone and
/// all but each.
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

/// The definition of every operation on bf16, bit for bit: widen, the f32 operation, round what is written.
TEST(OpCasesInBf16, AreTheF32OperationRoundedOnce) {
    for (const OpCase& op_case : all_cases()) {
        if (op_case.in_turn) continue;  // HaveTheBitsOfSimplerOperations
        for (const std::vector<DType>& types : bf16_types(op_case)) {
            Bench narrow(op_case, types), wide(op_case, types_of(op_case, DType::f32));
            for (std::size_t i = 0; i < types.size(); ++i) Bench::fill(wide.views[i], narrow.values()[i]);
            narrow.run(op_case);
            wide.run(op_case);
            Bench want(op_case, types);
            for (std::size_t i = 0; i < types.size(); ++i) Bench::fill(want.views[i], wide.values()[i]);
            expect_same_bits(op_case, narrow, want, "bf16");
        }
    }
}

TEST(OpGradients, AgreeWithFiniteDifferences) {
    constexpr i64 kMostElements = 400;  // larger ones repeat the same kernels
    constexpr double kStep = 1e-5;
    int compared = 0;
    for (const OpCase& op_case : all_cases()) {
        for (const auto& [input, gradient, added] : op_case.gradients) {
            const std::size_t elements = op_case.buffers[input].values.size();
            if (elements > kMostElements) continue;
            Bench analytic(op_case, DType::f64);
            analytic.run(op_case);
            Bench forward(op_case, DType::f64);
            for (std::size_t i = 0; i < elements; ++i) {
                const auto element = static_cast<i64>(i);
                const double centre = op_case.buffers[input].values[i];
                set(forward.views[input], element, centre + kStep);
                double numeric = forward.objective(op_case);
                set(forward.views[input], element, centre - kStep);
                numeric = (numeric - forward.objective(op_case)) / (2 * kStep);
                set(forward.views[input], element, centre);
                const double before = added ? op_case.buffers[gradient].values[i] : 0;
                const double have = get(analytic.views[gradient], element) - before;
                ASSERT_NEAR(have, numeric, 1e-6 * (1 + std::abs(numeric)))
                    << op_case.name << ": " << op_case.buffers[gradient].name << "[" << i << "]";
                ++compared;
            }
        }
    }
    EXPECT_GT(compared, 1000);
}

}  // namespace
}  // namespace moesaic::conformance
