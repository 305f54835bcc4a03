// What every case of the table writes, kept in a file by one program and compared by another: the emulator's
// numbers with a GPU's (tests/gpu_check). Both start from the same operands.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "runtime/cuda/cuda_backend.h"
#include "tests/conformance/op_bench.h"
#include "tests/cuda_host/emulator.h"

namespace moesaic::conformance {
namespace {

/// What a case has written into one of its buffers.
struct Result {
    const OpCase& op_case;
    DType stored, type;
    const std::string& buffer;
    [[nodiscard]] std::string title() const {
        return fmt::format("{} {}: {}", op_case.name, name_of(stored), buffer);
    }
};

/// Calls `use(result, values)` for every buffer that a case has written, in the order of the table.
template <class Use>
void for_each_result(const Use& use) {
    for (const DType stored : {DType::f32, DType::f64, DType::bf16}) {
        for (const OpCase& op_case : all_cases()) {
            const std::vector<DType> types = types_of(op_case, stored);
            Bench bench(op_case, types, std::make_unique<CudaBackend>(0));
            bench.run(op_case);
            const Values values = bench.values();
            for (std::size_t i = 0; i < values.size(); ++i)
                if (op_case.buffers[i].written)
                    use(Result{op_case, stored, types[i], op_case.buffers[i].name}, values[i]);
            if (::testing::Test::HasFatalFailure()) return;
        }
    }
}

void write_results(const char* path) {
    std::ofstream file(path, std::ios::binary);
    for_each_result([&](const Result&, const std::vector<double>& values) {
        const std::size_t count = values.size();
        file.write(reinterpret_cast<const char*>(&count), sizeof count);
        file.write(reinterpret_cast<const char*>(values.data()), std::streamsize(count * sizeof(double)));
    });
    ASSERT_TRUE(file.flush()) << path;
}

struct Compared {
    i64 numbers = 0, same_bits = 0;
    double furthest = 0;  ///< of a buffer's largest
    std::string where;
};

void compare(const Result& result, const std::vector<double>& have, const std::vector<double>& want,
             Compared& compared) {
    const double largest = largest_of(want);
    for (std::size_t i = 0; i < have.size(); ++i) {
        ++compared.numbers;
        if (have[i] == want[i] || (std::isnan(have[i]) && std::isnan(want[i]))) {
            ++compared.same_bits;
            continue;
        }
        ASSERT_TRUE(std::isfinite(want[i]))
            << result.title() << ", element " << i << ": " << have[i] << " here, " << want[i] << " there";
        const double apart = std::abs(have[i] - want[i]);
        ASSERT_LE(apart, allowed_apart(result.op_case, result.stored, result.type, want[i], largest))
            << result.title() << ", element " << i << ": " << have[i] << " here, " << want[i] << " there";
        const double scale = std::max(largest, 1e-3);  // below, terms of about 1 have cancelled
        if (apart <= compared.furthest * scale) continue;
        compared.furthest = apart / scale;
        compared.where = result.title();
    }
}

void compare_results(const char* path) {
    std::ifstream file(path, std::ios::binary);
    ASSERT_TRUE(file) << path;
    Compared compared;
    for_each_result([&](const Result& result, const std::vector<double>& have) {
        std::size_t count = 0;
        file.read(reinterpret_cast<char*>(&count), sizeof count);
        ASSERT_EQ(count, have.size()) << result.title() << ": " << path << " is another program's";
        std::vector<double> want(count);
        file.read(reinterpret_cast<char*>(want.data()), std::streamsize(count * sizeof(double)));
        ASSERT_TRUE(file) << result.title() << ": " << path << " ends here";
        compare(result, have, want, compared);
    });
    std::printf("%lld numbers, %lld of the same bits, the furthest %.2g of a result's largest apart%s\n",
                static_cast<long long>(compared.numbers), static_cast<long long>(compared.same_bits),
                compared.furthest, compared.where.empty() ? "" : (" (" + compared.where + ")").c_str());
}

TEST(GpuOpResults, AreThoseOfTheFile) {
    const char *const to = std::getenv("MOESAIC_OP_RESULTS_TO"), *const from =
                                                                     std::getenv("MOESAIC_OP_RESULTS_FROM");
    if (!to && !from) GTEST_SKIP() << "MOESAIC_OP_RESULTS_TO or MOESAIC_OP_RESULTS_FROM names a file";
    cuda_host::reset({});
    if (to) write_results(to);
    if (from) compare_results(from);
}

}  // namespace
}  // namespace moesaic::conformance
