// Products against a slow oracle, and the bits that must not depend on layout.
#include "runtime/cpu/gemm.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/cpu/gemm_tasks.h"

namespace moesaic {
namespace {

template <class T>
std::vector<T> random_values(i64 count, u64 seed) {
    const Philox random(seed, "gemm test");
    std::vector<T> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(random.uniform(i) - 0.5);
    return values;
}

template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

/// Owns the operands of one product; c starts with values that overwriting must not let through.
template <class T>
struct Case {
    i64 m, n, p;
    bool trans_a = false, trans_b = false, accumulate = false;
    std::vector<T> a = random_values<T>(m * p, 1), b = random_values<T>(p * n, 2),
                   c = random_values<T>(m * n, 3);

    MatrixProduct<T> product() {
        return {m,
                n,
                p,
                operand(a.data(), trans_a ? m : p, trans_a),
                operand(b.data(), trans_b ? p : n, trans_b),
                c.data(),
                n,
                accumulate};
    }
    std::vector<T> result(int threads) {
        const std::vector<T> before = c;
        ThreadPool pool(threads);
        multiply(pool, product());
        std::vector<T> out = before;
        out.swap(c);
        return out;
    }
    /// The chain that the contract promises, one element at a time.
    std::vector<T> oracle() {
        const MatrixProduct<T> want = product();
        std::vector<T> out(static_cast<std::size_t>(m * n));
        for (i64 i = 0; i < m; ++i) {
            for (i64 j = 0; j < n; ++j) {
                T sum = accumulate ? c[static_cast<std::size_t>(i * n + j)] : T(0);
                for (i64 k = 0; k < p; ++k)
                    sum = std::fma(*want.a.real.from(i, k).data, *want.b.real.from(k, j).data, sum);
                out[static_cast<std::size_t>(i * n + j)] = sum;
            }
        }
        return out;
    }
};

/// A copy of some values that ends where a page begins that nobody may touch.
template <class T>
class AtTheEndOfMemory {
  public:
    explicit AtTheEndOfMemory(const std::vector<T>& values) : count_(values.size()) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), bytes = count_ * sizeof(T);
        room_ = (bytes + page - 1) / page * page;
        void* const mapped =
            mmap(nullptr, room_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT_NE(mapped, MAP_FAILED);
        start_ = static_cast<std::byte*>(mapped);
        EXPECT_EQ(mprotect(start_ + room_, page, PROT_NONE), 0);
        mapped_ = room_ + page;
        std::ranges::copy(values, data());
    }
    ~AtTheEndOfMemory() { munmap(start_, mapped_); }
    AtTheEndOfMemory(const AtTheEndOfMemory&) = delete;
    AtTheEndOfMemory& operator=(const AtTheEndOfMemory&) = delete;
    [[nodiscard]] T* data() const { return reinterpret_cast<T*>(start_ + room_ - count_ * sizeof(T)); }
    [[nodiscard]] std::vector<T> values() const { return {data(), data() + count_}; }

  private:
    std::size_t count_, room_ = 0, mapped_ = 0;  // elements; bytes
    std::byte* start_ = nullptr;
};

/// Restricts the instruction sets while it lives.
class OnlyTarget {
  public:
    explicit OnlyTarget(i64 target) { hwy::SetSupportedTargetsForTest(target); }
    ~OnlyTarget() { hwy::SetSupportedTargetsForTest(0); }
    OnlyTarget(const OnlyTarget&) = delete;
    OnlyTarget& operator=(const OnlyTarget&) = delete;
};

template <class T>
class Gemm : public ::testing::Test {};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Gemm, Reals);

TYPED_TEST(Gemm, EveryShapeAndTransposeIsTheFusedChainBitForBit) {
    // With fused instructions the chain is fully determined, so equality is exact and holds across targets.
    const i64 fused = hwy::SupportedTargets() & (HWY_AVX3 | HWY_AVX2);
    for (const i64 target : {i64{HWY_AVX3}, i64{HWY_AVX2}}) {
        if ((fused & target) == 0) continue;
        const OnlyTarget only(target | HWY_SCALAR | HWY_EMU128);
        for (const auto& [m, n, p] :
             std::vector<std::tuple<i64, i64, i64>>{{0, 5, 3},
                                                    {5, 0, 3},
                                                    {5, 7, 0},
                                                    {1, 1, 1},
                                                    {17, 17, 17},
                                                    {6, 64, 16},
                                                    {8, 48, 16},
                                                    {18, 130, 33},
                                                    {130, 70, 9},
                                                    {9, 49, 33},
                                                    {3, 97, 5},
                                                    {12, 31, 400},
                                                    {7, 16, 1},
                                                    {130, 50, 9},
                                                    {700, 30, 9},
                                                    {9, 20, 4 * gemm::kMostInnerBlock + 5},
                                                    {3, 1300, 5}}) {
            for (int flags = 0; flags < 8; ++flags) {
                Case<TypeParam> one{m, n, p, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0};
                ASSERT_TRUE(same_bits(one.result(1), one.oracle()))
                    << m << "x" << n << "x" << p << " flags " << flags << " " << hwy::TargetName(target);
            }
        }
    }
}

TYPED_TEST(Gemm, WithoutVectorsTheResultIsCloseAndRowsAreStillIndependent) {
    const OnlyTarget only(HWY_SCALAR | HWY_EMU128);
    Case<TypeParam> many{19, 23, 400};
    const auto all = many.result(1), want = many.oracle();
    for (std::size_t i = 0; i < all.size(); ++i)
        ASSERT_NEAR(all[i], want[i], sizeof(TypeParam) == 4 ? 1e-3 : 1e-11);
    Case<TypeParam> last{1, 23, 400};
    last.a.assign(many.a.end() - 400, many.a.end());
    last.b = many.b;
    EXPECT_TRUE(same_bits(last.result(1), std::vector<TypeParam>(all.end() - 23, all.end())));
}

/// A page that may not be touched follows each operand and the result: on vectors of 16 bytes masked loads
/// and blended stores would.
TYPED_TEST(Gemm, TouchesNothingBehindItsOperands) {
    const i64 supported = hwy::SupportedTargets();
    for (const i64 target : {i64{HWY_AVX3}, i64{HWY_AVX2}, i64{0}}) {
        if ((supported & target) != target) continue;
        const OnlyTarget only(target | HWY_SCALAR | HWY_EMU128);
        for (int flags = 0; flags < 8; ++flags) {
            Case<TypeParam> one{5, 7, 9, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0};
            const AtTheEndOfMemory<TypeParam> a(one.a), b(one.b), c(one.c);
            MatrixProduct<TypeParam> product = one.product();
            product.a.real.data = a.data();
            product.b.real.data = b.data();
            product.c = c.data();
            ThreadPool pool(1);
            multiply(pool, product);
            EXPECT_TRUE(same_bits(c.values(), one.result(1))) << "flags " << flags;
        }
    }
}

TYPED_TEST(Gemm, ARowDoesNotDependOnTheOtherRows) {
    for (const bool trans_b : {false, true}) {
        Case<TypeParam> many{19, 70, 500, false, trans_b};
        const auto all = many.result(1);
        for (i64 row = 0; row < many.m; ++row) {
            Case<TypeParam> one{1, 70, 500, false, trans_b};
            one.a.assign(many.a.begin() + row * 500, many.a.begin() + (row + 1) * 500);
            one.b = many.b;
            ASSERT_TRUE(same_bits(
                one.result(1), std::vector<TypeParam>(all.begin() + row * 70, all.begin() + (row + 1) * 70)))
                << "row " << row;
        }
    }
}

TEST(GemmTasks, AreAllRowsAndAllPanelsOnce) {
    for (i64 rows = 1; rows <= 13; ++rows) {
        for (i64 groups = 1; groups <= 9; ++groups) {
            for (i64 threads = 1; threads <= 8; ++threads) {
                gemm::Slice<float> slice{};
                slice.row_tasks = rows, slice.panels = 2 * groups - 1, slice.panels_per_task = 2;
                std::vector<int> taken(static_cast<std::size_t>(rows * groups));
                for (i64 task = 0; task < rows * groups; ++task) {
                    const gemm::TaskPlace place = gemm::place_of(slice, task, threads);
                    ASSERT_TRUE(place.rows < rows && place.panel_group < groups);
                    ++taken[static_cast<std::size_t>(place.rows * groups + place.panel_group)];
                }
                EXPECT_EQ(std::ranges::count(taken, 1), rows * groups) << threads << " threads";
            }
        }
    }
}

TEST(GemmTasks, FinishTheirThreadsRowsFirst) {
    gemm::Slice<float> slice{};
    slice.row_tasks = 5, slice.panels = 3, slice.panels_per_task = 1;
    std::vector<i64> rows;
    for (i64 task = 1; task < 15; task += 2) rows.push_back(gemm::place_of(slice, task, 2).rows);
    EXPECT_EQ(rows, (std::vector<i64>{1, 1, 1, 3, 3, 3, 4}));
}

TEST(GemmTasks, AreFewerWhereProductsByTilesAreSmall) {
    const auto work = [](Bf16Products products, double all, i64 threads) {
        return gemm::work_per_task(all, threads, products);
    };
    constexpr double kMost = 100 * gemm::kWorthATask;  // enough for all tasks
    for (const auto products : {Bf16Products::widened, Bf16Products::pairs, Bf16Products::tiles}) {
        EXPECT_EQ(work(products, 1000, 1), 1000);
        EXPECT_EQ(work(products, kMost, 2), kMost / 12);
    }
    EXPECT_EQ(work(Bf16Products::pairs, 1200, 2), 100);
    EXPECT_EQ(work(Bf16Products::tiles, 1200, 2), 600);
    EXPECT_EQ(work(Bf16Products::tiles, 7.9 * gemm::kWorthATask, 2), 7.9 * gemm::kWorthATask / 6);
}

TEST(GemmBlocks, RowsStayInTheCacheBesideAPanelOrInTheLastOne) {
    EXPECT_EQ(gemm::rows_over_panels({1 << 20, 1 << 20}, 512 * 4, 64), 512 - 96);
    EXPECT_EQ(gemm::rows_over_panels({1 << 20, 1 << 20}, 2048 * 4, 64), 64);
    EXPECT_EQ(gemm::rows_over_panels({2 << 20, 64 << 20}, 2048 * 4, 64), 256);
    EXPECT_EQ(gemm::rows_over_panels({2 << 20, 64 << 20}, 4096 * 4, 64), 128);
    EXPECT_EQ(gemm::rows_over_panels({2 << 20, 64 << 20}, 512 * 4, 64), 256);
    EXPECT_EQ(gemm::rows_over_panels({1 << 20, 16 << 20}, 2048 * 4, 64), 1024);
}

TEST(GemmBlocks, EveryOneOfSeveralThreadsHasTwoTasksOfRows) {
    EXPECT_EQ(gemm::most_rows(1000, 2, 5000), 250);
    EXPECT_EQ(gemm::most_rows(1001, 2, 5000), 251);
    EXPECT_EQ(gemm::most_rows(400, 1, 5000), 400);
    EXPECT_EQ(gemm::most_rows(1000, 8, 5000), 128);
    EXPECT_EQ(gemm::most_rows(100000, 2, 5000), 512);
    EXPECT_EQ(gemm::most_rows(100000, 2, 300), 300);
    EXPECT_EQ(gemm::most_rows(100000, 2, 3), 128);
}

TYPED_TEST(Gemm, ThreadsChangeNoBit) {
    for (const auto& [m, n, p] :
         std::vector<std::tuple<i64, i64, i64>>{{200, 130, 400}, {5, 900, 64}, {400, 3, 50}}) {
        for (int flags = 0; flags < 4; ++flags) {
            Case<TypeParam> one{m, n, p, (flags & 1) != 0, (flags & 2) != 0, true};
            ASSERT_TRUE(same_bits(one.result(1), one.result(3)));
        }
    }
}

TYPED_TEST(Gemm, PanelsThatAreLeftOverAreSharedByRows) {
    ThreadPool packing(1);
    for (const i64 m : {1, 2, 17, 24, 25, 32}) {
        for (const i64 panels : {1, 2, 3, 7, 15}) {
            const i64 n = panels * gemm_kernels<TypeParam>().panel_columns - 5, p = 40;
            Case<TypeParam> one{m, n, p};
            std::vector<TypeParam> packed(static_cast<std::size_t>(packed_elements<TypeParam>(p, n)));
            pack_weight<TypeParam>(packing, {.weight = one.b.data(), .n = p, .p = n, .plain = packed.data()});
            const auto want = one.result(1);
            for (const int threads : {2, 3, 4}) {
                EXPECT_TRUE(same_bits(want, one.result(threads)));
                std::vector<TypeParam> got(want.size(), TypeParam(-7));
                MatrixProduct<TypeParam> product = one.product();
                product.packed_b = packed.data();
                product.c = got.data();
                ThreadPool pool(threads);
                multiply(pool, product);
                EXPECT_TRUE(same_bits(want, got)) << m << " x " << n << " on " << threads << " threads";
            }
        }
    }
}

TYPED_TEST(Gemm, SplittingTheInnerExtentChangesNoBit) {
    for (const i64 first : {i64{1}, i64{100}, i64{384}, i64{499}}) {
        Case<TypeParam> whole{20, 60, 500, true};
        Case<TypeParam> split = whole;
        ThreadPool pool(1);
        MatrixProduct<TypeParam> part = split.product();
        part.p = first;
        multiply(pool, part);
        part = split.product();
        part.a = part.a.real.from(0, first);
        part.b = part.b.real.from(first, 0);
        part.p -= first;
        part.accumulate = true;
        multiply(pool, part);
        EXPECT_TRUE(same_bits(whole.result(1), split.c)) << "split at " << first;
    }
}

TYPED_TEST(Gemm, RowsOfCMayHaveGapsThatStayUntouched) {
    constexpr i64 kStride = 64;
    Case<TypeParam> dense{10, 50, 30};
    std::vector<TypeParam> wide(10 * kStride, TypeParam(-7));
    MatrixProduct<TypeParam> product = dense.product();
    product.c = wide.data();
    product.c_row_stride = kStride;
    ThreadPool pool(2);
    multiply(pool, product);
    const auto want = dense.result(1);
    for (i64 i = 0; i < 10; ++i) {
        for (i64 j = 0; j < kStride; ++j)
            ASSERT_EQ(wide[static_cast<std::size_t>(i * kStride + j)],
                      j < 50 ? want[static_cast<std::size_t>(i * 50 + j)] : TypeParam(-7));
    }
}

}  // namespace
}  // namespace moesaic
