// Grouped products equal one product per group bit for bit, whatever the groups' sizes.
#include "runtime/cpu/grouped_gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "runtime/base/host_memory.h"
#include "runtime/base/philox.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/gemm_tasks.h"

namespace moesaic {
namespace {

template <class T>
std::vector<T> random_values(i64 count, u64 seed) {
    const Philox random(seed, "grouped gemm test");
    std::vector<T> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(random.uniform(i) - 0.5);
    return values;
}

i64 sum_of(const std::vector<i64>& rows) {
    return std::accumulate(rows.begin(), rows.end(), i64{0});
}

const std::vector<std::vector<i64>> kGroupings{{},
                                               {0},
                                               {1},
                                               {17, 0, 3},
                                               {0, 500, 0, 1},
                                               {2 * gemm::kMostInnerBlock + 1, 5},
                                               {8, 8, 8, 8, 8, 8, 8, 8},
                                               {0, 0, 0}};

template <class T>
class GroupedGemm : public ::testing::Test {};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GroupedGemm, Reals);

TYPED_TEST(GroupedGemm, EqualsOneProductPerGroupBitForBit) {
    constexpr i64 kN = 70, kP = 33;
    for (const auto& rows : kGroupings) {
        const i64 groups = static_cast<i64>(rows.size()), total = sum_of(rows);
        const auto a = random_values<TypeParam>(total * kP, 1),
                   b = random_values<TypeParam>(groups * kN * kP, 2);
        for (int flags = 0; flags < 4; ++flags) {
            const bool trans_b = (flags & 1) != 0, accumulate = (flags & 2) != 0;
            // Two rows beyond the groups have to stay as they are.
            auto want = random_values<TypeParam>((total + 2) * kN, 3), have = want;
            ThreadPool one(1), three(3);
            i64 row = 0;
            for (i64 group = 0; group < groups; ++group) {
                const i64 count = rows[static_cast<std::size_t>(group)];
                multiply(one, MatrixProduct<TypeParam>{
                                  count, kN, kP, operand(a.data() + row * kP, kP),
                                  operand(b.data() + group * kN * kP, trans_b ? kP : kN, trans_b),
                                  want.data() + row * kN, kN, accumulate});
                row += count;
            }
            for (ThreadPool* pool : {&one, &three}) {
                auto c = have;
                multiply_groups(*pool, GroupedProduct<TypeParam>{rows, kN, kP, a.data(), b.data(), c.data(),
                                                                 trans_b, accumulate});
                ASSERT_EQ(c, want) << groups << " groups, " << pool->threads() << " threads, flags " << flags;
            }
        }
    }
}

/// Each part's product from zero, then onto the sum: whatever the parts, the threads and the pieces of p.
TYPED_TEST(GroupedGemm, WeightGradAddsThePartsProductsToTheSums) {
    constexpr i64 kM = 19, kN = 70;
    for (const auto& rows : kGroupings) {
        for (const i64 groups : {i64{1}, static_cast<i64>(rows.size())}) {
            if (rows.empty()) continue;
            const i64 total = sum_of(rows), parts = static_cast<i64>(rows.size()) / groups;
            const auto a = random_values<TypeParam>(total * kM, 1),
                       b = random_values<TypeParam>(total * kN, 2);
            auto want = random_values<double>(groups * kM * kN, 3), have = want;
            ThreadPool one(1), three(3);
            i64 row = 0;
            for (std::size_t part = 0; part < rows.size(); ++part) {
                std::vector<TypeParam> product(kM * kN);
                multiply(one,
                         MatrixProduct<TypeParam>{kM, kN, rows[part], operand(a.data() + row * kM, kM, true),
                                                  operand(b.data() + row * kN, kN), product.data(), kN});
                for (std::size_t i = 0; i < product.size(); ++i)
                    want[static_cast<std::size_t>(static_cast<i64>(part) / parts * kM * kN) + i] +=
                        static_cast<double>(product[i]);
                row += rows[part];
            }
            for (ThreadPool* pool : {&one, &three}) {
                auto c = have;
                accumulate_weight_grads(
                    *pool, GroupedWeightGrad<TypeParam>{rows, groups, kM, kN, a.data(), b.data(), c.data()});
                ASSERT_EQ(c, want) << groups << " groups of " << parts << " parts";
            }
        }
    }
}

/// Many enough to go past the caches, of groups with rows, with parts, and with none.
TYPED_TEST(GroupedGemm, SumsFromZeroAreWhatClearedOnesBecome) {
    for (const i64 n : {512, 509}) {  // rows that begin with a vector, and others
        constexpr i64 kM = 2100, kGroups = 4;
        const std::vector<i64> rows{3, 0, 0, 0, 1, 2, 0, 17};
        const auto a = random_values<TypeParam>(sum_of(rows) * kM, 1),
                   b = random_values<TypeParam>(sum_of(rows) * n, 2);
        std::vector<double> want(static_cast<std::size_t>(kGroups * kM * n), 0.0);
        std::vector<double> have(want.size(), std::numeric_limits<double>::quiet_NaN());
        ThreadPool pool(3);
        GroupedWeightGrad<TypeParam> product{rows, kGroups, kM, n, a.data(), b.data(), want.data()};
        accumulate_weight_grads(pool, product);
        product.c = have.data();
        product.from_zero = true;
        accumulate_weight_grads(pool, product);
        EXPECT_EQ(std::memcmp(have.data(), want.data(), want.size() * sizeof(double)), 0) << n;
    }
}

/// Sums in the type of the products: what f64 sums of one part, rounded, are, -0 from an underflow included.
/// Enough to go past the caches.
TEST(GroupedGemmSums, RealSumsOfOnePartAreTheF64SumsRounded) {
    for (const i64 n : {512, 509}) {
        constexpr i64 kM = 2100, kGroups = 8;
        const std::vector<i64> rows{3, 0, 1, 2, 0, 17, 5, 1};
        auto a = random_values<float>(sum_of(rows) * kM, 1), b = random_values<float>(sum_of(rows) * n, 2);
        for (std::size_t i = 0; i < a.size(); i += 2) a[i] *= 1e-30F;
        for (std::size_t i = 0; i < b.size(); i += 3) b[i] *= 1e-30F;
        std::vector<double> sums(static_cast<std::size_t>(kGroups * kM * n), 0.0);
        ThreadPool pool(3);
        GroupedWeightGrad<float> product{rows, kGroups, kM, n, a.data(), b.data(), sums.data()};
        accumulate_weight_grads(pool, product);
        const std::vector<float> want(sums.begin(), sums.end());
        const std::unique_ptr<void, decltype(&std::free)> memory(  // aligned, as streams need it
            allocate_host_memory(static_cast<i64>(want.size() * sizeof(float))), &std::free);
        const std::span have(static_cast<float*>(memory.get()), want.size());
        std::ranges::fill(have, std::numeric_limits<float>::quiet_NaN());
        product.c = have.data();
        product.from_zero = true;
        accumulate_weight_grads(pool, product);
        EXPECT_EQ(std::memcmp(have.data(), want.data(), want.size() * sizeof(float)), 0) << n;
        product.from_zero = false;
        accumulate_weight_grads(pool, product);
        for (std::size_t i = 0; i < want.size(); ++i) ASSERT_EQ(have[i], 2 * want[i]) << i;
    }
}

}  // namespace
}  // namespace moesaic
