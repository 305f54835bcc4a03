// Copies of weights, element by element: both at once, of halves, past the caches, wherever they stand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <type_traits>
#include <vector>

#include "runtime/base/host_memory.h"
#include "runtime/bfloat16.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/cpu/gemm.h"
#include "tests/unit/runtime/cpu/cpu_target.h"

namespace moesaic {
namespace {

template <class T>
constexpr bool kInPairs = std::is_same_v<T, BFloat16>;

/// All different, as far as there are as many of bf16.
template <class T>
T weight_element(i64 index) {
    if constexpr (kInPairs<T>) {
        return BFloat16{static_cast<std::uint16_t>(index % 65521 + 1)};
    } else {
        return static_cast<T>(index + 1);
    }
}
double number_of(BFloat16 value) {
    return value.bits;
}
double number_of(double value) {
    return value;
}

constexpr double kUntouched = 7777;

struct WeightExtents {
    i64 groups, halves, n, p;
};

/// Copies of b [p,n], one of `count`; element (k, j) of copy c is number_at(c, k, j).
template <class T, class NumberAt>
void append_copies(i64 count, i64 p, i64 n, const NumberAt& number_at, std::vector<double>& all) {
    const auto& kernels = gemm_kernels<std::conditional_t<kInPairs<T>, float, T>>();
    constexpr i64 kTogether = kInPairs<T> ? 2 : 1;
    const i64 first = pair_order(bf16_products()) == PairOrder::upper_first ? 1 : 0;
    for (i64 copy = 0; copy < count; ++copy) {
        for (i64 column = 0; column < n; column += kernels.panel_columns) {
            const i64 columns = std::min(kernels.panel_columns, n - column);
            const i64 width = (columns + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
            for (i64 k = 0; k < p; k += kTogether) {
                for (i64 j = 0; j < width * kTogether; ++j) {
                    const i64 row = kTogether == 1 ? k : k + (j + first) % 2;
                    const bool exists = row < p && j / kTogether < columns;
                    all.push_back(exists ? number_at(copy, row, column + j / kTogether) : 0);
                }
            }
        }
    }
}

/// Copies of both kinds, with as many elements before each as move it off its alignment.
template <class T>
class PackedBoth {
  public:
    PackedBoth(const WeightExtents& extents, i64 gap) : extents_(extents), gap_(gap) {
        const auto [groups, halves, n, p] = extents;
        weight_.resize(static_cast<std::size_t>(groups * n * p));
        for (std::size_t i = 0; i < weight_.size(); ++i) weight_[i] = weight_element<T>(static_cast<i64>(i));
        sizes_[0] = groups * halves * packed_elements<T>(p, n / halves);
        sizes_[1] = groups * packed_elements<T>(n, p);
    }

    void expect_packed(int threads, bool past_caches, bool transposed, bool plain) const {
        using Memory = std::unique_ptr<void, decltype(&std::free)>;
        const auto allocated = [&](int kind) {
            Memory memory(allocate_host_memory(elements(kind) * i64{sizeof(T)}), &std::free);
            std::fill_n(static_cast<T*>(memory.get()), elements(kind), untouched());
            return memory;
        };
        const Memory memory[] = {allocated(0), allocated(1)};
        T* const copies[] = {static_cast<T*>(memory[0].get()), static_cast<T*>(memory[1].get())};
        ThreadPool pool(threads);
        pack_weight<T>(pool, {.weight = weight_.data(),
                              .groups = extents_.groups,
                              .halves = extents_.halves,
                              .n = extents_.n,
                              .p = extents_.p,
                              .transposed = transposed ? copies[0] + gap_ : nullptr,
                              .plain = plain ? copies[1] + gap_ : nullptr,
                              .past_caches = past_caches});
        for (const int kind : {0, 1}) {
            const auto want = expected(kind, kind == 0 ? transposed : plain);
            ASSERT_EQ(std::ssize(want), elements(kind));
            for (i64 i = 0; i < elements(kind); ++i)
                ASSERT_EQ(number_of(copies[kind][i]), want[static_cast<std::size_t>(i)])
                    << (kind == 0 ? "transposed" : "plain") << " copy of " << extents_.groups << " groups of "
                    << extents_.n << " x " << extents_.p << " in " << extents_.halves << ", gap " << gap_
                    << ", past caches " << past_caches << ", at " << i;
        }
    }

  private:
    static T untouched() {
        if constexpr (kInPairs<T>) {
            return BFloat16{static_cast<std::uint16_t>(kUntouched)};
        } else {
            return static_cast<T>(kUntouched);
        }
    }
    [[nodiscard]] i64 elements(int kind) const { return sizes_[kind] + 2 * gap_; }

    [[nodiscard]] std::vector<double> expected(int kind, bool written) const {
        const auto [groups, halves, n, p] = extents_;
        std::vector<double> all(static_cast<std::size_t>(gap_), kUntouched);
        const i64 rows = n / halves;
        const auto number = [&, columns = p](i64 row, i64 column) {
            return number_of(weight_[static_cast<std::size_t>(row * columns + column)]);
        };
        if (written && kind == 0)
            append_copies<T>(
                groups * halves, p, rows, [&](i64 copy, i64 k, i64 j) { return number(copy * rows + j, k); },
                all);
        if (written && kind == 1)
            append_copies<T>(
                groups, n, p,
                [&, height = n](i64 copy, i64 k, i64 j) { return number(copy * height + k, j); }, all);
        all.resize(static_cast<std::size_t>(elements(kind)), kUntouched);
        return all;
    }

    WeightExtents extents_;
    i64 gap_;
    std::vector<T> weight_;
    i64 sizes_[2] = {};
};

// Of one panel and several; halves of odd rows, so that pairs cross them; lines and vectors that are not
// whole.
constexpr WeightExtents kExtents[] = {{1, 1, 1, 1},    {2, 1, 5, 7},     {1, 2, 6, 10},
                                      {3, 2, 134, 66}, {2, 2, 130, 70},  {1, 1, 129, 3},
                                      {2, 1, 64, 128}, {1, 2, 256, 200}, {1, 1, 6000, 3}};

template <class T>
void expect_copies() {
    for (const WeightExtents& extents : kExtents) {
        for (const i64 gap_bytes : {0, 16, 64}) {
            const PackedBoth<T> both(extents, gap_bytes / i64{sizeof(T)});
            for (const bool past_caches : {false, true}) {
                both.expect_packed(2, past_caches, true, true);
                if (testing::Test::HasFatalFailure()) return;
            }
            both.expect_packed(1, true, true, false);
            both.expect_packed(3, true, false, true);
            if (testing::Test::HasFatalFailure()) return;
        }
    }
}

class PackedMatrix : public CpuTargetTest {};
INSTANTIATE_TEST_SUITE_P(Targets, PackedMatrix,
                         ::testing::Values(i64{HWY_AVX3}, i64{HWY_AVX2}, i64{HWY_STATIC_TARGET}),
                         name_of_target);

TEST_P(PackedMatrix, HasEveryElementInItsPlace) {
    expect_copies<float>();
    expect_copies<double>();
    for (const auto products : {Bf16Products::widened, Bf16Products::tiles}) {
        const ScopedBf16Products order(products);
        expect_copies<BFloat16>();
    }
}

}  // namespace
}  // namespace moesaic
