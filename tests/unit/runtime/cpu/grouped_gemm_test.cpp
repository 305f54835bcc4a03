// Grouped products equal one product per group bit for bit, whatever the groups' sizes.
#include "runtime/cpu/grouped_gemm.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/cpu/gemm.h"

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

const std::vector<std::vector<i64>> kGroupings{
    {}, {0}, {1}, {17, 0, 3}, {0, 500, 0, 1}, {8, 8, 8, 8, 8, 8, 8, 8}, {0, 0, 0}};

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

TYPED_TEST(GroupedGemm, WeightGradEqualsTheChainOverRows) {
    constexpr i64 kM = 19, kN = 50;
    for (const auto& rows : kGroupings) {
        const i64 groups = static_cast<i64>(rows.size()), total = sum_of(rows);
        const auto a = random_values<TypeParam>(total * kM, 1), b = random_values<TypeParam>(total * kN, 2);
        const auto before = random_values<TypeParam>(groups * kM * kN, 3);
        std::vector<double> want(before.begin(), before.end());
        i64 row = 0;
        for (i64 group = 0; group < groups; ++group)
            for (const i64 end = row + rows[static_cast<std::size_t>(group)]; row < end; ++row)
                for (i64 i = 0; i < kM; ++i)
                    for (i64 j = 0; j < kN; ++j)
                        want[static_cast<std::size_t>((group * kM + i) * kN + j)] +=
                            static_cast<double>(a[static_cast<std::size_t>(row * kM + i)]) *
                            static_cast<double>(b[static_cast<std::size_t>(row * kN + j)]);
        ThreadPool one(1), three(3);
        auto c = before, other = before;
        accumulate_weight_grads(one,
                                GroupedWeightGrad<TypeParam>{rows, kM, kN, a.data(), b.data(), c.data()});
        accumulate_weight_grads(three,
                                GroupedWeightGrad<TypeParam>{rows, kM, kN, a.data(), b.data(), other.data()});
        EXPECT_EQ(c, other);
        for (std::size_t i = 0; i < c.size(); ++i)
            ASSERT_NEAR(c[i], want[i], sizeof(TypeParam) == 4 ? 2e-4 : 1e-12);
    }
}

TYPED_TEST(GroupedGemm, WeightGradOfRowsInTwoCallsEqualsOne) {
    constexpr i64 kM = 20, kN = 30, kRows = 450;
    const auto a = random_values<TypeParam>(kRows * kM, 1), b = random_values<TypeParam>(kRows * kN, 2);
    ThreadPool pool(2);
    auto run = [&](i64 first, i64 count, std::vector<TypeParam>& c) {
        const std::vector<i64> rows{count};
        accumulate_weight_grads(pool, GroupedWeightGrad<TypeParam>{rows, kM, kN, a.data() + first * kM,
                                                                   b.data() + first * kN, c.data()});
    };
    auto whole = random_values<TypeParam>(kM * kN, 3);
    const auto before = whole;
    run(0, kRows, whole);
    for (const i64 split : {i64{1}, i64{64}, i64{384}, i64{449}}) {
        auto parts = before;
        run(0, split, parts);
        run(split, kRows - split, parts);
        EXPECT_EQ(parts, whole) << "split at " << split;
    }
}

}  // namespace
}  // namespace moesaic
