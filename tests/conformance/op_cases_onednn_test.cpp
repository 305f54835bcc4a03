// Every case of the table with cpu.gemm: onednn: with a library that is plain loops, which runs everywhere,
// and with oneDNN itself where it is installed.
#include <gtest/gtest.h>

#include <atomic>

#include "runtime/cpu/onednn.h"
#include "tests/conformance/op_bench.h"

namespace moesaic::conformance {
namespace {

std::atomic<i64> plain_calls{0};

/// dnnl_sgemm as its documentation has it.
int plain_product(char trans_a, char trans_b, i64 m, i64 n, i64 k, float alpha, const float* a, i64 a_stride,
                  const float* b, i64 b_stride, float beta, float* c, i64 c_stride) {
    plain_calls.fetch_add(1);
    if (a_stride < (trans_a == 'N' ? k : m) || b_stride < (trans_b == 'N' ? n : k) || c_stride < n) return 2;
    for (i64 i = 0; i < m; ++i) {
        for (i64 j = 0; j < n; ++j) {
            double sum = 0;
            for (i64 p = 0; p < k; ++p) {
                const float left = trans_a == 'N' ? a[i * a_stride + p] : a[p * a_stride + i];
                const float right = trans_b == 'N' ? b[p * b_stride + j] : b[j * b_stride + p];
                sum += static_cast<double>(left) * static_cast<double>(right);
            }
            float& element = c[i * c_stride + j];
            element = static_cast<float>(alpha * sum) + (beta == 0 ? 0.0F : beta * element);
        }
    }
    return 0;
}

void expect_products(const OneDnn& library) {
    constexpr int kThreads = 3;
    std::vector<OpCase> cases;
    append_product_cases(cases);
    append_activation_cases(cases);
    append_row_index_cases(cases);
    for (const OpCase& op_case : cases) {
        Bench bench(op_case, types_of(op_case, DType::f32), make_cpu_backend_on(library, kThreads));
        const Values before = bench.values();
        bench.run(op_case);
        expect_plain_loops(op_case, before, bench.values(), DType::f32);
        if (::testing::Test::HasFatalFailure()) return;
    }
}

TEST(OneDnn, ALibraryOfPlainLoopsComputesEveryProductOfTheTable) {
    const OneDnn loops{plain_product, nullptr, "plain loops"};
    plain_calls = 0;
    expect_products(loops);
    EXPECT_GT(plain_calls.load(), 100);
}

TEST(OneDnn, AgreesWithPlainLoops) {
    const OneDnnResult& onednn = onednn_library();
    if (!onednn.library) GTEST_SKIP() << onednn.problem;
    EXPECT_EQ(onednn.library->name.rfind("oneDNN ", 0), 0U) << onednn.library->name;
    expect_products(*onednn.library);
}

}  // namespace
}  // namespace moesaic::conformance
