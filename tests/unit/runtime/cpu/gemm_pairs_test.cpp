// Products of bf16: by the CPU's instruction for pairs of them, where it has one, as widened, bit for bit; by
// its tiles in the order that those have.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/bfloat16.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/gemm_tasks.h"
#include "runtime/cpu/tile_products.h"
#include "tests/unit/runtime/cpu/cpu_target.h"

namespace moesaic {
namespace {

std::vector<BFloat16> random_values(i64 count, u64 seed) {
    const Philox random(seed, "gemm pairs test");
    std::vector<BFloat16> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_bfloat16(random.uniform(i) - 0.5);
    return values;
}

float element(const StridedOperand<BFloat16>& operand, i64 row, i64 column) {
    return widened(operand.column_index ? operand.column(column)[row * operand.row_stride]
                                        : operand.row(row)[column * operand.column_stride]);
}

float product_of(const ProductOperand<float>& a, const ProductOperand<float>& b, i64 i, i64 k, i64 j,
                 float sum) {
    return std::fma(element(a.narrow, i, k), element(b.narrow, k, j), sum);
}

/// Addends [first, last).
float chain(const MatrixProduct<float>& product, i64 i, i64 j, i64 first, i64 last, float sum) {
    for (i64 k = first; k < last; ++k) sum = product_of(product.a, product.b, i, k, j, sum);
    return sum;
}

/// The same in the order of tiles: of 32 addends those of even number, and those of odd number, are summed
/// first.
float sum_of_tiles(const MatrixProduct<float>& product, i64 i, i64 j, i64 first, i64 last, float sum) {
    for (; first < last; first += 32) {
        float even = 0, odd = 0;
        for (i64 k = first; k < std::min(first + 32, last); ++k) {
            float& half = (k - first) % 2 == 0 ? even : odd;
            half = product_of(product.a, product.b, i, k, j, half);
        }
        sum += even + odd;
    }
    return sum;
}

/// With AVX-512, where there is AMX and AVX512_BF16 too, and without.
class GemmPairs : public ::testing::TestWithParam<std::pair<i64, Bf16Products>> {
  protected:
    void SetUp() override {
        const auto [target, products] = GetParam();
        if (!cpu_has_target(target) || (products == Bf16Products::pairs && !cpu_has(products)))
            GTEST_SKIP() << "not on this CPU";
        use_target(target);
        use_bf16_products(products);
    }
    void TearDown() override {
        use_all_targets();
        use_bf16_products(before_);
    }
    /// Addends [first, last), in the order that products have.
    static float sum(const MatrixProduct<float>& product, i64 i, i64 j, i64 first, i64 last, float sum) {
        return (GetParam().second == Bf16Products::tiles ? sum_of_tiles : chain)(product, i, j, first, last,
                                                                                 sum);
    }

  private:
    Bf16Products before_ = bf16_products();
};
INSTANTIATE_TEST_SUITE_P(Targets, GemmPairs,
                         ::testing::Values(std::pair{i64{HWY_AVX3}, Bf16Products::tiles},
                                           std::pair{i64{HWY_AVX3}, Bf16Products::pairs},
                                           std::pair{i64{HWY_AVX3}, Bf16Products::widened},
                                           std::pair{i64{HWY_AVX2}, Bf16Products::widened},
                                           std::pair{i64{HWY_AVX2}, Bf16Products::tiles}),
                         [](const auto& test) {
                             return std::string(hwy::TargetName(test.param.first)) + "_" +
                                    std::string(name_of(test.param.second));
                         });

const std::vector<std::tuple<i64, i64, i64>> kShapes{{1, 1, 1},
                                                     {1, 1, 2},
                                                     {17, 17, 17},
                                                     {6, 64, 16},
                                                     {8, 48, 16},
                                                     {9, 49, 33},
                                                     {3, 97, 5},
                                                     {12, 31, 400},
                                                     {7, 16, 1},
                                                     {64, 64, 64},
                                                     {49, 97, 95},
                                                     {33, 47, 34},
                                                     {130, 50, 9},
                                                     {9, 20, 3 * gemm::kMostInnerBlock + 56},
                                                     {3, 1300, 5},
                                                     {70, 40, 4 * gemm::kMostInnerBlock + 1},
                                                     {530, 5, 4 * gemm::kMostInnerBlock + 1},
                                                     {17, 330, 12}};

TEST_P(GemmPairs, RowsThatStandInMemoryBitForBit) {
    for (const auto& [m, n, p] : kShapes) {
        const auto a = random_values(m * p, 1), b = random_values(p * n, 2);
        std::vector<i32> index(static_cast<std::size_t>(m));
        for (i64 i = 0; i < m; ++i) index[static_cast<std::size_t>(i)] = static_cast<i32>((i * 7 + 3) % m);
        for (int flags = 0; flags < 16; ++flags) {
            const bool trans_b = flags & 1, accumulate = flags & 2, packed = flags & 4, indexed = flags & 8;
            MatrixProduct<float> product;
            product.m = m, product.n = n, product.p = p;
            product.a = operand(a.data(), p);
            if (indexed) product.a.narrow.row_index = index.data();
            product.b = operand(b.data(), trans_b ? p : n, trans_b);
            std::vector<float> c(static_cast<std::size_t>(m * n), 0.25F);
            product.c = c.data();
            product.c_row_stride = n;
            product.accumulate = accumulate;
            std::vector<BFloat16> copy(static_cast<std::size_t>(packed_elements<BFloat16>(p, n)));
            ThreadPool pool(flags % 3 + 1);
            if (packed) {
                pack_weight<BFloat16>(pool, {.weight = b.data(),
                                             .n = trans_b ? n : p,
                                             .p = trans_b ? p : n,
                                             .transposed = trans_b ? copy.data() : nullptr,
                                             .plain = trans_b ? nullptr : copy.data()});
                product.packed_b = copy.data();
            }
            multiply(pool, product);
            for (i64 i = 0; i < m; ++i)
                for (i64 j = 0; j < n; ++j)
                    ASSERT_EQ(c[static_cast<std::size_t>(i * n + j)],
                              sum(product, i, j, 0, p, accumulate ? 0.25F : 0.0F))
                        << m << "x" << n << "x" << p << " flags " << flags << " at " << i << ", " << j;
        }
    }
}

/// Results in bf16, of widths with and without whole vectors: ties, infinities and NaN among them.
TEST_P(GemmPairs, ResultsAreRoundedOnceBitForBit) {
    for (const auto& [m, n, p] : kShapes) {
        auto a = random_values(m * p, 1);
        const auto b = random_values(p * n, 2);
        a[0] = to_bfloat16(std::numeric_limits<float>::infinity());
        if (m > 1) a[static_cast<std::size_t>(p)] = to_bfloat16(std::numeric_limits<float>::quiet_NaN());
        if (m > 2) a[static_cast<std::size_t>(2 * p)] = to_bfloat16(3e38F);
        MatrixProduct<float> product;
        product.m = m, product.n = n, product.p = p;
        product.a = operand(a.data(), p);
        product.b = operand(b.data(), n);
        std::vector<BFloat16> c(static_cast<std::size_t>(m * n));
        product.rounded_c = c.data();
        product.c_row_stride = n;
        ThreadPool pool(2);
        multiply(pool, product);
        for (i64 i = 0; i < m; ++i) {
            for (i64 j = 0; j < n; ++j) {
                const float have = widened(c[static_cast<std::size_t>(i * n + j)]);
                const float want = widened(to_bfloat16(sum(product, i, j, 0, p, 0.0F)));
                ASSERT_TRUE(have == want || (std::isnan(have) && std::isnan(want)))
                    << have << " is not " << want << " in " << m << "x" << n << "x" << p << " at " << i
                    << ", " << j;
            }
        }
    }
}

/// As gradients of weights are: parts of any size, each with pairs of its own, onto sums in f64.
TEST_P(GemmPairs, PartsOfTransposedRowsBitForBit) {
    const std::vector<std::vector<i64>> groupings{
        {1}, {2}, {17, 0, 3}, {0, 0}, {5, 1, 1, 8}, {3 * gemm::kMostInnerBlock + 57, 7}, {333}};
    for (const auto& parts : groupings) {
        for (const auto& [m, n] : std::vector<std::pair<i64, i64>>{{2, 3}, {19, 70}, {130, 49}, {8, 48}}) {
            const i64 p = std::accumulate(parts.begin(), parts.end(), i64{0});
            const auto a = random_values(p * m, 1), b = random_values(p * n, 2);
            std::vector<i32> a_rows(static_cast<std::size_t>(p)), b_rows(a_rows);
            for (i64 k = 0; k < p; ++k) {
                a_rows[static_cast<std::size_t>(k)] = static_cast<i32>((k * 3 + 1) % p);
                b_rows[static_cast<std::size_t>(k)] = static_cast<i32>(p - 1 - k);
            }
            for (int flags = 0; flags < 4; ++flags) {
                MatrixProduct<float> product;
                product.m = m, product.n = n, product.p = p;
                product.a = operand(a.data(), m, true);
                product.b = operand(b.data(), n);
                if (flags & 1) product.a.narrow.column_index = a_rows.data();
                if (flags & 2) product.b.narrow.row_index = b_rows.data();
                std::vector<double> sums(static_cast<std::size_t>(m * n), 0.125);
                product.sum = sums.data();
                product.parts = parts;
                ThreadPool pool(flags % 3 + 1);
                multiply(pool, product);
                for (i64 i = 0; i < m; ++i) {
                    for (i64 j = 0; j < n; ++j) {
                        double want = 0.125;
                        i64 first = 0;
                        for (const i64 part : parts) {
                            if (part > 0)
                                want += static_cast<double>(sum(product, i, j, first, first + part, 0));
                            first += part;
                        }
                        ASSERT_EQ(sums[static_cast<std::size_t>(i * n + j)], want)
                            << m << "x" << n << "x" << p << " flags " << flags << " at " << i << ", " << j;
                    }
                }
            }
        }
    }
}

/// Denormal numbers, infinities and NaN among them, of any magnitude, and every number of rows.
TEST(TileProducts, LoopsGiveTheBitsOfHardware) {
    if (!has_tile_products()) GTEST_SKIP() << "not on this CPU";
    const Philox random(1, "tile products test");
    std::vector<u32> a(32 * 40), panel(32 * 64);
    for (const u32 exponents : {1U, 4U, 40U, 255U}) {  // around 1; of all, most sums are infinite or NaN
        u64 next = 0;
        const auto bits = [&] {
            const u64 word = static_cast<u64>(random.uniform(next++) * 0x1p53);
            const auto exponent = exponents == 255 ? static_cast<u32>(word >> 8) % 256
                                                   : 63 + static_cast<u32>(word >> 8) % exponents;
            return static_cast<u32>(word & 0x7f) | exponent << 7 | static_cast<u32>(word >> 40 & 1) << 15;
        };
        for (auto* const values : {&a, &panel})
            for (u32& pair : *values) pair = bits() | bits() << 16;
        for (i64 rows = 1; rows <= 32; ++rows) {
            for (const bool accumulate : {false, true}) {
                std::vector<float> have(32 * 64, 0.5F), want(have);
                TileProduct product;
                product.rows = rows, product.columns = rows > 16 ? 32 : 64, product.pairs = 16;
                product.whole = {reinterpret_cast<const float*>(a.data()), 40,
                                 reinterpret_cast<const float*>(panel.data()), 64};
                product.left = {product.whole.a + 16, 40, product.whole.panel + i64{16} * 64, 64};
                product.c_row_stride = 64, product.accumulate = accumulate;
                const TileScope scope;
                product.c = have.data();
                detail::multiply_hardware_tiles(product);
                product.c = want.data();
                detail::multiply_tiles_by_loops(product);
                for (std::size_t i = 0; i < have.size(); ++i)
                    ASSERT_TRUE(have[i] == want[i] || (std::isnan(have[i]) && std::isnan(want[i])))
                        << have[i] << " is not " << want[i] << ", " << rows << " rows, " << exponents
                        << " exponents, at " << i;
            }
        }
    }
}

TEST(Bf16Products, AreNamedAndComeBack) {
    const Bf16Products quickest = quickest_bf16_products(true);
    EXPECT_EQ(bf16_products(), quickest);
    for (const auto products : {Bf16Products::widened, Bf16Products::pairs, Bf16Products::tiles})
        EXPECT_EQ(bf16_products_named(name_of(products)), products);
    {
        const ScopedBf16Products others(Bf16Products::widened);
        EXPECT_EQ(bf16_products(), Bf16Products::widened);
    }
    EXPECT_EQ(bf16_products(), quickest);
    EXPECT_EQ(quickest == Bf16Products::tiles, cpu_has(Bf16Products::tiles));
    EXPECT_NE(quickest_bf16_products(false), Bf16Products::tiles);
}

}  // namespace
}  // namespace moesaic
