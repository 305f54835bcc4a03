// Grouped products of bf16 beside rows that hold NaN: those of other groups, and those of none. Operands are
// whole numbers, whose sums are the same in any order.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/bfloat16.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/hopper/grouped_products.h"
#include "tests/cuda_host/emulator.h"

namespace moesaic {
namespace {

using Numbers = std::vector<double>;

constexpr std::size_t at(i64 index) {
    return static_cast<std::size_t>(index);
}

/// From -3 to 3.
Numbers whole_numbers(i64 count, std::string_view name) {
    const Philox random(7, name);
    Numbers numbers;
    for (i64 i = 0; i < count; ++i)
        numbers.push_back(std::floor(7 * random.uniform(static_cast<u64>(i))) - 3);
    return numbers;
}

/// The group of each row by the rows of its parts; -1 for a few at the end that belong to none.
std::vector<i64> group_of_rows(const std::vector<i64>& rows_per_part, i64 parts) {
    std::vector<i64> group;
    for (i64 part = 0; part < std::ssize(rows_per_part); ++part)
        group.insert(group.end(), at(rows_per_part[at(part)]), part / parts);
    group.insert(group.end(), 5, -1);
    return group;
}

class GpuGroupedProducts : public ::testing::Test {
  protected:
    void SetUp() override {
        int devices = 0;
        cuda_host::reset({});
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
        backend_ = std::make_unique<CudaBackend>(0);
        stream_ = backend_->make_stream("compute");
    }
    void TearDown() override {
        stream_.reset();
        backend_.reset();
        EXPECT_EQ(cuda_host::first_finding(), "");
        EXPECT_EQ(cuda_host::live_allocations(), 0);
    }
    Tensor bf16(Shape shape, const Numbers& values) {
        Tensor tensor = backend_->allocate(shape, DType::bf16);
        for (i64 i = 0; i < tensor.elements(); ++i) tensor.as<BFloat16>()[i] = to_bfloat16(values[at(i)]);
        return tensor;
    }
    Numbers product_of_rows(const GroupedGemm& operation, Tensor& c) {
        backend_->grouped_gemm(*stream_, operation);
        stream_->synchronize();
        Numbers numbers;
        for (i64 i = 0; i < c.elements(); ++i)
            numbers.push_back(static_cast<double>(widened(c.as<BFloat16>()[i])));
        return numbers;
    }
    void expect_rows(bool trans_b, bool accumulate, i64 spoilt_every);
    void expect_weights(bool from_zero, i64 spoilt_every);

    std::unique_ptr<CudaBackend> backend_;
    std::unique_ptr<Stream> stream_;
};

void spoil(Numbers& values, i64 first, i64 count) {
    std::fill_n(values.begin() + first, count, std::numeric_limits<double>::quiet_NaN());
}
/// The rows of every n-th group and those of none.
bool is_spoilt(i64 group, i64 every) {
    return group < 0 || group % every == 0;
}

// More than a tile of either, and the last terms fill no step of a kernel's.
void GpuGroupedProducts::expect_rows(bool trans_b, bool accumulate, i64 spoilt_every) {
    constexpr i64 kWidth = 264, kTerms = 136, kMatrix = kWidth * kTerms;
    const std::vector<i64> rows_per_group{0, 1, 127, 0, 129, 200, 64, 0};
    const std::vector<i64> group_of = group_of_rows(rows_per_group, 1);
    const i64 groups = std::ssize(rows_per_group), rows = std::ssize(group_of);
    Numbers a = whole_numbers(rows * kTerms, "a"), b = whole_numbers(groups * kMatrix, "b");
    const Numbers before = whole_numbers(rows * kWidth, "c");
    for (i64 row = 0; row < rows; ++row)
        if (is_spoilt(group_of[at(row)], spoilt_every)) spoil(a, row * kTerms, kTerms);
    for (i64 group = 0; group < groups; group += spoilt_every) spoil(b, group * kMatrix, kMatrix);
    Tensor left = bf16({rows, kTerms}, a), c = bf16({rows, kWidth}, before);
    Tensor right = bf16(trans_b ? Shape{groups, kWidth, kTerms} : Shape{groups, kTerms, kWidth}, b);
    const Numbers have = product_of_rows({.a = left,
                                          .b = right,
                                          .c = c,
                                          .rows_per_group = rows_per_group,
                                          .trans_b = trans_b,
                                          .accumulate = accumulate},
                                         c);
    for (i64 i = 0; i < rows * kWidth; ++i) {
        const i64 row = i / kWidth, column = i % kWidth, group = group_of[at(row)];
        if (group >= 0 && is_spoilt(group, spoilt_every)) continue;
        double sum = accumulate || group < 0 ? before[at(i)] : 0;
        for (i64 k = 0; k < kTerms && group >= 0; ++k)
            sum += a[at(row * kTerms + k)] *
                   b[at(group * kMatrix + (trans_b ? column * kTerms + k : k * kWidth + column))];
        ASSERT_EQ(have[at(i)], static_cast<double>(widened(to_bfloat16(sum))))
            << "group " << group << ", row " << row << ", column " << column;
    }
}

TEST_F(GpuGroupedProducts, OfRowsReadNoOtherGroup) {
    for (const bool trans_b : {false, true})
        for (const bool accumulate : {false, true}) expect_rows(trans_b, accumulate, accumulate ? 2 : 3);
}

void GpuGroupedProducts::expect_weights(bool from_zero, i64 spoilt_every) {
    constexpr i64 kHeight = 136, kWidth = 264, kMatrix = kHeight * kWidth, kGroups = 4;
    const std::vector<i64> rows_per_part{0, 11, 22, 0, 0, 0, 200, 0, 1, 70, 0, 64};
    const std::vector<i64> group_of = group_of_rows(rows_per_part, 3);
    const i64 rows = std::ssize(group_of);
    Numbers a = whole_numbers(rows * kHeight, "a"), b = whole_numbers(rows * kWidth, "b");
    for (i64 row = 0; row < rows; ++row) {
        if (!is_spoilt(group_of[at(row)], spoilt_every)) continue;
        spoil(a, row * kHeight, kHeight);
        spoil(b, row * kWidth, kWidth);
    }
    Numbers want = whole_numbers(kGroups * kMatrix, "c");
    if (from_zero) spoil(want, 0, kGroups * kMatrix);
    Tensor left = bf16({rows, kHeight}, a), right = bf16({rows, kWidth}, b);
    Tensor c = backend_->allocate({kGroups, kHeight, kWidth}, DType::f64);
    std::ranges::copy(want, c.as<double>());
    if (from_zero) want.assign(want.size(), 0);
    backend_->grouped_gemm_weight_grad(
        *stream_, {.a = left, .b = right, .c = c, .rows_per_part = rows_per_part, .from_zero = from_zero});
    stream_->synchronize();
    for (i64 row = 0; row < rows; ++row)
        for (i64 i = 0; i < kMatrix && group_of[at(row)] >= 0; ++i)
            want[at(group_of[at(row)] * kMatrix + i)] +=
                a[at(row * kHeight + i / kWidth)] * b[at(row * kWidth + i % kWidth)];
    for (i64 i = 0; i < kGroups * kMatrix; ++i)
        ASSERT_TRUE(std::isnan(want[at(i)]) || c.as<double>()[i] == want[at(i)])
            << "group " << i / kMatrix << ", row " << i % kMatrix / kWidth << ", column " << i % kWidth
            << ": " << c.as<double>()[i] << ", not " << want[at(i)];
}

TEST_F(GpuGroupedProducts, OfWeightsReadNoOtherGroup) {
    for (const bool from_zero : {false, true})
        for (const i64 spoilt_every : {2, 3}) expect_weights(from_zero, spoilt_every);
}

/// Which cuBLAS does not promise.
TEST_F(GpuGroupedProducts, OfRowsKeepTheirBitsInOtherGroups) {
    if (hopper::multiprocessors_for_grouped_products() == 0)
        GTEST_SKIP() << "cuBLAS may add in another order";
    constexpr i64 kRows = 500, kWidth = 256, kTerms = 512;
    Numbers a = whole_numbers(kRows * kTerms, "a"), b = whole_numbers(kWidth * kTerms, "b");
    for (Numbers* const numbers : {&a, &b})
        for (std::size_t i = 0; i < numbers->size(); ++i)
            (*numbers)[i] = std::sin(static_cast<double>(i) * (*numbers)[i] + 1);
    const Numbers one_group = b;
    b.insert(b.end(), one_group.begin(), one_group.end());
    Tensor left = bf16({kRows, kTerms}, a), right = bf16({2, kWidth, kTerms}, b);
    Numbers first;
    for (const i64 split : {250, 1, 77, 499}) {
        Tensor c = bf16({kRows, kWidth}, Numbers(at(kRows * kWidth), 0));
        const std::vector<i64> rows_per_group{split, kRows - split};
        const Numbers have = product_of_rows(
            {.a = left, .b = right, .c = c, .rows_per_group = rows_per_group, .trans_b = true}, c);
        if (first.empty()) first = have;
        EXPECT_EQ(have, first) << split;
    }
}

}  // namespace
}  // namespace moesaic
