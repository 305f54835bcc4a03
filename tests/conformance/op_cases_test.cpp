// Every case of the table on the CPU back end: against the plain loops, finite differences, and itself in
// other layouts.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/gemm_tasks.h"
#include "tests/conformance/op_bench.h"

namespace moesaic::conformance {
namespace {

static_assert(kSeveralPieces > 3 * gemm::kMostInnerBlock);  // pairs of bf16: a piece and a half is not parted

/// Operands on the CPU back end.
struct CpuBench : Bench {
    CpuBench(const OpCase& op_case, DType stored, int threads = 1,
             StreamMode mode = StreamMode::inline_execution, u64 seed = 0)
        : Bench(op_case, types_of(op_case, stored), make_cpu_backend(threads, mode, seed)) {}
    CpuBench(const OpCase& op_case, const std::vector<DType>& types)
        : Bench(op_case, types, make_cpu_backend(1)) {}
};

class OpCases : public ::testing::TestWithParam<DType> {};
class PreciseOpCases : public ::testing::TestWithParam<DType> {};

TEST_P(PreciseOpCases, AgreeWithPlainLoops) {
    for (const OpCase& op_case : all_cases()) {
        CpuBench bench(op_case, GetParam());
        const Values before = bench.values();
        bench.run(op_case);
        expect_plain_loops(op_case, before, bench.values(), GetParam());
        if (HasFatalFailure()) return;
    }
}

TEST_P(OpCases, KeepTheirBitsWithMoreThreads) {
    for (const OpCase& op_case : all_cases()) {
        CpuBench one(op_case, GetParam()), three(op_case, GetParam(), 3);
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
            CpuBench whole(op_case, GetParam()), split(op_case, GetParam());
            whole.run(op_case);
            split.run_split(op_case, first, rows);
            expect_same_bits(op_case, split, whole, "splitting the rows");
        }
    }
}

TEST_P(OpCases, KeepTheirBitsOnDeferredStreams) {
    for (const OpCase& op_case : all_cases()) {
        CpuBench inline_bench(op_case, GetParam());
        CpuBench deferred(op_case, GetParam(), 1, StreamMode::deferred_shuffled, 5);
        const CpuBench untouched(op_case, GetParam());
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
        CpuBench fused(op_case, GetParam(), 2), simple(op_case, GetParam());
        fused.run(op_case);
        op_case.same_bits(*simple.backend, *simple.stream, simple.views);
        expect_same_bits(op_case, fused, simple, "doing it at once");
    }
    EXPECT_GT(compared, 10);
}

TEST_P(OpCases, WriteOnlyTheirOutputs) {
    for (const OpCase& op_case : all_cases()) {
        CpuBench bench(op_case, GetParam());
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

/// Calls compare(operation, bench, bench) as compare_with_f32 does.
template <class Compare>
void compare_all_with_f32(const Compare& compare) {
    for (const OpCase& op_case : all_cases()) {
        if (op_case.in_turn) continue;  // HaveTheBitsOfSimplerOperations
        compare_with_f32(
            op_case, [&](const std::vector<DType>& types) { return CpuBench(op_case, types); },
            [&](const Bench& have, const Bench& want) { compare(op_case, have, want); });
    }
}

/// The definition of every operation on bf16, bit for bit: widen, the f32 operation, round what is written.
TEST(OpCasesInBf16, AreTheF32OperationRoundedOnce) {
    const ScopedBf16Products products(cpu_has(Bf16Products::pairs) ? Bf16Products::pairs
                                                                   : Bf16Products::widened);
    compare_all_with_f32([](const OpCase& op_case, const Bench& have, const Bench& want) {
        expect_same_bits(op_case, have, want, "bf16");
    });
}

/// Tiles have an order of their own (GemmPairs), and attention by them rounds on the way.
TEST(OpCasesInBf16, AreAboutTheF32OperationByTiles) {
    const ScopedBf16Products products(Bf16Products::tiles);
    compare_all_with_f32([](const OpCase& op_case, const Bench& have, const Bench& want) {
        expect_same_but_products(op_case, DType::bf16, have, want, "by tiles");
    });
}

TEST(OpGradients, AgreeWithFiniteDifferences) {
    constexpr i64 kMostElements = 400;  // larger ones repeat the same kernels
    constexpr double kStep = 1e-5;
    int compared = 0;
    for (const OpCase& op_case : all_cases()) {
        for (const auto& [input, gradient, added] : op_case.gradients) {
            const std::size_t elements = op_case.buffers[input].values.size();
            if (elements > kMostElements) continue;
            CpuBench analytic(op_case, DType::f64);
            analytic.run(op_case);
            CpuBench forward(op_case, DType::f64);
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
