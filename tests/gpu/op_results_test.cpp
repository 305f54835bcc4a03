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

/// Calls `use(title, type, values)` for every buffer that a case has written, in the order of the table.
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
                    use(fmt::format("{} {}: {}", op_case.name, name_of(stored), op_case.buffers[i].name),
                        types[i], values[i]);
            if (::testing::Test::HasFatalFailure()) return;
        }
    }
}

void write_results(const char* path) {
    std::ofstream file(path, std::ios::binary);
    for_each_result([&](const std::string&, DType, const std::vector<double>& values) {
        const std::size_t count = values.size();
        file.write(reinterpret_cast<const char*>(&count), sizeof count);
        file.write(reinterpret_cast<const char*>(values.data()), std::streamsize(count * sizeof(double)));
    });
    ASSERT_TRUE(file.flush()) << path;
}

/// How far two results may be apart: not at all in whole numbers, in bf16 by two units in the last place,
/// else by 1e-5, of the number and of the buffer's largest.
double allowed(DType type, double want, double largest) {
    if (type == DType::int32 || type == DType::int64) return 0;
    return (type == DType::bf16 ? 2.0 / 256 * std::abs(want) : 0) + 1e-5 * std::max(std::abs(want), largest);
}

struct Compared {
    i64 numbers = 0, same_bits = 0;
    double furthest = 0;  ///< of a buffer's largest
    std::string where;
};

void compare(const std::string& title, DType type, const std::vector<double>& have,
             const std::vector<double>& want, Compared& compared) {
    double largest = 0;
    for (const double one : want)
        if (std::isfinite(one)) largest = std::max(largest, std::abs(one));
    for (std::size_t i = 0; i < have.size(); ++i) {
        ++compared.numbers;
        if (have[i] == want[i] || (std::isnan(have[i]) && std::isnan(want[i]))) {
            ++compared.same_bits;
            continue;
        }
        ASSERT_TRUE(std::isfinite(want[i]))
            << title << ", element " << i << ": " << have[i] << " here, " << want[i] << " there";
        const double apart = std::abs(have[i] - want[i]);
        ASSERT_LE(apart, allowed(type, want[i], largest))
            << title << ", element " << i << ": " << have[i] << " here, " << want[i] << " there";
        if (apart <= compared.furthest * largest) continue;
        compared.furthest = apart / largest;
        compared.where = title;
    }
}

void compare_results(const char* path) {
    std::ifstream file(path, std::ios::binary);
    ASSERT_TRUE(file) << path;
    Compared compared;
    for_each_result([&](const std::string& title, DType type, const std::vector<double>& have) {
        std::size_t count = 0;
        file.read(reinterpret_cast<char*>(&count), sizeof count);
        ASSERT_EQ(count, have.size()) << title << ": " << path << " is another program's";
        std::vector<double> want(count);
        file.read(reinterpret_cast<char*>(want.data()), std::streamsize(count * sizeof(double)));
        ASSERT_TRUE(file) << title << ": " << path << " ends here";
        compare(title, type, have, want, compared);
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
