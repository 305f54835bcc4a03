// Every case of the table on the GPU's back end: against the plain loops, against itself in parts, and in
// bf16. Linked with the emulator's CUDA, so that all of it runs on the host, in several of its orders; or, as
// cuda_device_tests, with CUDA itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/cuda/cuda_backend.h"
#include "tests/conformance/op_bench.h"
#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/modes.h"

namespace moesaic::conformance {
namespace {

struct GpuBench : Bench {
    GpuBench(const OpCase& op_case, DType stored) : GpuBench(op_case, types_of(op_case, stored)) {}
    GpuBench(const OpCase& op_case, const std::vector<DType>& types, i64 first = 0)
        : Bench(op_case, types, std::make_unique<CudaBackend>(0), first) {}
};

/// With a seed of the emulator: in which order threads and streams advance.
class GpuOpCases : public ::testing::TestWithParam<u64> {
  protected:
    void SetUp() override {
        int devices = 0;
        cuda_host::reset({.seed = GetParam()});
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    }
    void TearDown() override {
        EXPECT_EQ(cuda_host::first_finding(), "");
        EXPECT_EQ(cuda_host::live_allocations(), 0);
    }
};

i64 elements_of(const OpCase& op_case) {
    i64 elements = 0;
    for (const Buffer& buffer : op_case.buffers) elements += buffer.shape.elements();
    return elements;
}

void expect_plain_loops_of_all(DType dtype, i64 most_elements = std::numeric_limits<i64>::max()) {
    for (const OpCase& op_case : all_cases()) {
        if (elements_of(op_case) > most_elements) continue;
        GpuBench bench(op_case, dtype);
        const Values before = bench.values();
        bench.run(op_case);
        expect_plain_loops(op_case, before, bench.values(), dtype);
        if (::testing::Test::HasFatalFailure()) return;
    }
}

TEST_P(GpuOpCases, AgreeWithPlainLoops) {
    expect_plain_loops_of_all(DType::f32);
    expect_plain_loops_of_all(DType::f64);
    EXPECT_GT(cuda_host::kernels_run(), 500);
}

/// The definition of every operation on bf16, bit for bit but in products: widen, the f32 operation, round
/// what is written.
void expect_f32_rounded_once(const OpCase& op_case) {
    compare_with_f32(
        op_case, [&](const std::vector<DType>& types) { return GpuBench(op_case, types); },
        [&](const Bench& have, const Bench& want) {
            expect_same_but_products(op_case, DType::bf16, have, want, "bf16");
        });
}

/// In other orders, and in the ways of running kernels that the program has.
class GpuOpCasesInModes : public ::testing::TestWithParam<cuda_host::Mode> {
  protected:
    void SetUp() override { cuda_host::reset(GetParam().settings); }
    void TearDown() override {
        EXPECT_EQ(cuda_host::first_finding(), "");
        EXPECT_EQ(cuda_host::live_allocations(), 0);
        cuda_host::reset({});
    }
};
TEST_P(GpuOpCasesInModes, AgreeWithPlainLoops) {
    expect_plain_loops_of_all(DType::f32, GetParam().most_elements);
}
/// Their bf16 has kernels of its own, on tensor cores. Larger cases take seconds here, and run in GpuOpCases.
TEST_P(GpuOpCasesInModes, ThoseThatRoundInsideAgreeInBf16) {
    constexpr i64 kMostElements = 40000;
    for (const OpCase& op_case : all_cases())
        if (op_case.products == Products::round_inside &&
            elements_of(op_case) <= std::min<i64>(kMostElements, GetParam().most_elements))
            expect_f32_rounded_once(op_case);
}

TEST_P(GpuOpCases, WriteOnlyTheirOutputsAndOnlyWhenTheyRun) {
    for (const OpCase& op_case : all_cases()) {
        GpuBench bench(op_case, DType::f32);
        const Values before = bench.values();
        if (op_case.synchronizes) {
            bench.run(op_case);
        } else {
            const cuda_host::Hold hold(dynamic_cast<GpuStream&>(*bench.stream).handle());
            op_case.run(*bench.backend, *bench.stream, bench.views);
            EXPECT_EQ(bench.values(), before) << op_case.name << " does not wait";
        }
        bench.stream->synchronize();
        const Values after = bench.values();
        for (std::size_t buffer = 0; buffer < before.size(); ++buffer) {
            if (op_case.buffers[buffer].written) continue;
            EXPECT_EQ(after[buffer], before[buffer]) << op_case.name << ": " << op_case.buffers[buffer].name;
        }
    }
}

/// Slices may begin at any element: what takes several at a time has to see that it cannot.
TEST_P(GpuOpCases, AreTheSameWhereverOperandsBegin) {
    constexpr i64 kMostElements = 20000;  // larger ones repeat the same kernels
    for (const OpCase& op_case : all_cases()) {
        if (elements_of(op_case) > kMostElements) continue;
        for (const DType dtype : {DType::f32, DType::bf16}) {
            GpuBench sliced(op_case, types_of(op_case, dtype), 1), whole(op_case, dtype);
            const Values before = sliced.values();
            sliced.run(op_case);
            if (dtype == DType::f32) expect_plain_loops(op_case, before, sliced.values(), dtype);
            if (HasFatalFailure()) return;
            whole.run(op_case);
            expect_same_but_products(op_case, dtype, sliced, whole, "beginning elsewhere");
        }
    }
}

TEST_P(GpuOpCases, KeepTheirBitsWhenRowsAreSplit) {
    for (const OpCase& op_case : all_cases()) {
        if (op_case.row_unit == 0) continue;
        i64 rows = 0;
        for (const Buffer& buffer : op_case.buffers) rows = buffer.by_row ? buffer.shape.rows() : rows;
        const i64 unit = std::lcm(op_case.row_unit, op_case.gpu_row_unit);
        const i64 first = std::min(rows, std::max<i64>(1, rows / 2 / unit) * unit);
        GpuBench whole(op_case, DType::f32), split(op_case, DType::f32);
        whole.run(op_case);
        split.run_split(op_case, first, rows);
        expect_same_but_products(op_case, DType::f32, split, whole, "splitting the rows");
    }
}

TEST_P(GpuOpCases, HaveTheBitsOfSimplerOperations) {
    int compared = 0;
    for (const OpCase& op_case : all_cases()) {
        if (!op_case.same_bits) continue;
        ++compared;
        GpuBench fused(op_case, DType::bf16), simple(op_case, DType::bf16);
        fused.run(op_case);
        op_case.same_bits(*simple.backend, *simple.stream, simple.views);
        simple.stream->synchronize();
        expect_same_but_products(op_case, DType::bf16, fused, simple, "doing it at once");
    }
    EXPECT_GT(compared, 10);
}

TEST_P(GpuOpCases, InBf16AreTheF32OperationRoundedOnce) {
    for (const OpCase& op_case : all_cases())
        if (!op_case.in_turn) expect_f32_rounded_once(op_case);  // else HaveTheBitsOfSimplerOperations
}

INSTANTIATE_TEST_SUITE_P(Seeds, GpuOpCases, ::testing::Values(2), ::testing::PrintToStringParamName());
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuOpCasesInModes);
INSTANTIATE_TEST_SUITE_P(All, GpuOpCasesInModes, ::testing::ValuesIn(cuda_host::table_modes()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace moesaic::conformance
