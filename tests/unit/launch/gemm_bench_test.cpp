// What `bench gemm` measures, and that its check finds a wrong value in every kind of product.
#include "launch/bench/gemm_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "launch/bench/gemm_problem.h"
#include "runtime/base/error.h"
#include "runtime/bfloat16.h"

namespace moesaic {
namespace {

void spoil(TensorView view, i64 element) {
    if (view.dtype == DType::f64) view.as<double>()[element] += 0.1;
    if (view.dtype == DType::f32) view.as<float>()[element] += 0.1F;
    if (view.dtype == DType::bf16)
        view.as<BFloat16>()[element] = to_bfloat16(widened(view.as<BFloat16>()[element]) + 0.1F);
}

void expect_checked(const GemmSize& size, DType dtype) {
    SCOPED_TRACE(fmt::format("{} {} groups {}x{}x{} packed {} {}", size.layout, size.groups, size.m, size.n,
                             size.k, size.packed, name_of(dtype)));
    const auto backend = make_cpu_backend(2);
    const auto stream = backend->make_stream("compute");
    GemmProblem problem(*backend, *stream, size, dtype);
    problem.run();
    problem.run();
    stream->synchronize();
    EXPECT_EQ(problem.count_wrong(), 0);
    const i64 elements = problem.result().elements();
    spoil(problem.result(), 0);
    spoil(problem.result(), elements - 1);
    EXPECT_EQ(problem.count_wrong(), 2);
}

TEST(BenchGemm, FindsWrongValuesInEveryKindOfProduct) {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
        for (const char* layout : {"NN", "NT", "TN"}) {
            for (const i64 groups : {0, 1, 2}) {
                expect_checked({layout, groups, 9, 20, 17, false}, dtype);
                if (std::string(layout) != "TN") expect_checked({layout, groups, 9, 20, 17, true}, dtype);
            }
        }
    }
}

/// Where only some rows and columns are compared.
TEST(BenchGemm, FindsWrongValuesInTheCornersOfLargeProducts) {
    expect_checked({"NN", 0, 700, 500, 300, false}, DType::f32);
    expect_checked({"TN", 0, 700, 500, 300, false}, DType::f32);
}

TEST(BenchGemm, GroupsHaveUnevenRows) {
    for (const i64 groups : {0, 1, 2, 3, 8, 64}) {
        const std::vector<i64> rows = uneven_rows(groups, 100);
        ASSERT_EQ(static_cast<i64>(rows.size()), groups);
        EXPECT_EQ(std::accumulate(rows.begin(), rows.end(), i64{0}), 100 * groups);
        EXPECT_TRUE(std::is_sorted(rows.rbegin(), rows.rend()));
        if (groups > 1) {
            EXPECT_GT(rows[0], rows[1]);
        }
        if (groups > 2) {
            EXPECT_EQ(rows.back(), 0);
        }
    }
}

TEST(BenchGemm, EveryCombinationIsALine) {
    GemmOptions options;
    options.m = {17, 64};
    options.k = {32};
    options.groups = {0, 4};
    EXPECT_EQ(gemm_sizes(options).size(), 4U * 5) << "NN and NT packed or not, TN";
    options.packed = "yes";
    EXPECT_EQ(gemm_sizes(options).size(), 4U * 2);
    options.packed = "no";
    options.layouts = {"TN"};
    const std::vector<GemmSize> sizes = gemm_sizes(options);
    ASSERT_EQ(sizes.size(), 4U);
    EXPECT_EQ(sizes[1].m, 64);
    EXPECT_EQ(sizes[1].n, 512) << "what is left out has a default";
}

TEST(BenchGemm, TellsAllMistakesAtOnce) {
    GemmOptions options;
    options.dtype = "fp8";
    options.packed = "maybe";
    options.layouts = {"NN", "TT"};
    try {
        check_gemm_options(options);
        FAIL() << "no error";
    } catch (const UserError& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("--dtype: 'fp8'"));
        EXPECT_THAT(error.what(), testing::HasSubstr("--packed: 'maybe' is unknown; yes, no or both"));
        EXPECT_THAT(error.what(), testing::HasSubstr("--layout: 'TT' is unknown; NN, NT or TN"));
    }
    GemmOptions against;
    against.dtype = "bf16";
    against.against = "mkl";
    try {
        check_gemm_options(against);
        FAIL() << "no error";
    } catch (const UserError& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("--against: 'mkl' is unknown; onednn"));
        EXPECT_THAT(error.what(), testing::HasSubstr("--against: oneDNN's product is fp32, not bf16"));
    }
    GemmOptions nothing_to_pack;
    nothing_to_pack.packed = "yes";
    nothing_to_pack.layouts = {"TN"};
    EXPECT_THROW(check_gemm_options(nothing_to_pack), UserError);
}

}  // namespace
}  // namespace moesaic
