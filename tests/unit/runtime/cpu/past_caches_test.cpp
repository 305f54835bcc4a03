// Operations on so much memory that their results go past the caches: the bits of the same in small parts.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "runtime/backend.h"
#include "runtime/base/philox.h"
#include "tests/unit/runtime/cpu/cpu_target.h"

namespace moesaic {
namespace {

// What is streamed begins and ends within cache lines, of several threads too.
constexpr i64 kFirst = 3, kCount = 3000001, kAll = kCount + 40;
constexpr i64 kPart = 100000;  // of which caches hold everything

class PastCaches : public CpuTargetTest {};
INSTANTIATE_TEST_SUITE_P(Targets, PastCaches,
                         ::testing::Values(i64{HWY_AVX3}, i64{HWY_AVX2}, i64{HWY_STATIC_TARGET}),
                         name_of_target);

template <class T>
class NumberTensor {
  public:
    NumberTensor(Backend& backend, DType dtype, u64 seed) : tensor_(backend.allocate({kAll}, dtype)) {
        const Philox random(seed, "past caches test");
        for (i64 i = 0; i < kAll; ++i)
            data()[i] = static_cast<T>((random.uniform(static_cast<u64>(i)) - 0.5) * 3);
    }
    [[nodiscard]] T* data() { return tensor_.view().template as<T>(); }
    [[nodiscard]] TensorView part(i64 first, i64 count) { return tensor_.view().flat(kFirst + first, count); }

  private:
    Tensor tensor_;
};

template <class T>
void expect_same_bits(NumberTensor<T>& have, NumberTensor<T>& want) {
    EXPECT_EQ(std::memcmp(have.data(), want.data(), kAll * sizeof(T)), 0);
}

/// Calls run(first, count) for all elements at once, or for a part after the other.
template <class Run>
void in_parts(bool parts, const Run& run) {
    const i64 each = parts ? kPart : kCount;
    for (i64 first = 0; first < kCount; first += each) run(first, std::min(each, kCount - first));
}

TEST_P(PastCaches, DoublesAreRounded) {
    for (const int threads : {1, 3}) {
        const auto backend = make_cpu_backend(threads);
        const auto stream = backend->make_stream("compute");
        NumberTensor<double> from(*backend, DType::f64, 1);
        const double special[] = {1e300,
                                  -1e300,
                                  1e-310,
                                  1e-40,
                                  std::numeric_limits<double>::infinity(),
                                  -0.0,
                                  1e-60,
                                  std::numeric_limits<double>::quiet_NaN(),
                                  0x1.000001p0,
                                  -1e-45,
                                  3.5e38};
        for (i64 i = 0; i < 1000; ++i) from.data()[i * 2999] = special[i % 11];
        NumberTensor<float> streamed(*backend, DType::f32, 2), cached(*backend, DType::f32, 2);
        for (const bool parts : {false, true}) {
            NumberTensor<float>& to = parts ? cached : streamed;
            in_parts(parts, [&](i64 first, i64 count) {
                backend->convert(*stream, from.part(first, count), to.part(first, count));
            });
            stream->synchronize();
        }
        expect_same_bits(streamed, cached);
        for (i64 i = kFirst; i < kFirst + kCount; ++i)
            ASSERT_EQ(std::bit_cast<u32>(streamed.data()[i]),
                      std::bit_cast<u32>(static_cast<float>(from.data()[i])))
                << from.data()[i] << " at " << i;
    }
}

TEST_P(PastCaches, ParametersAreUpdated) {
    for (const int threads : {1, 3}) {
        const auto backend = make_cpu_backend(threads);
        const auto stream = backend->make_stream("compute");
        std::vector<std::vector<NumberTensor<float>>> runs(2);
        std::vector<std::vector<std::uint16_t>> rounded;
        for (const bool parts : {false, true}) {
            auto& reals = runs[parts ? 1 : 0];
            for (const u64 seed : {1U, 2U, 3U, 4U}) reals.emplace_back(*backend, DType::f32, seed);
            for (i64 i = 0; i < kAll; ++i) reals[2].data()[i] *= reals[2].data()[i];
            Tensor values = backend->allocate({kAll}, DType::bf16);
            std::memset(values.view().data, 0x55, static_cast<std::size_t>(values.view().bytes()));
            in_parts(parts, [&](i64 first, i64 count) {
                backend->adamw(*stream, {.parameter = reals[0].part(first, count),
                                         .first_moment = reals[1].part(first, count),
                                         .second_moment = reals[2].part(first, count),
                                         .gradient = reals[3].part(first, count),
                                         .rounded = values.view().flat(kFirst + first, count),
                                         .lr = 1e-2,
                                         .weight_decay = 0.1,
                                         .step = 3});
            });
            stream->synchronize();
            const auto* const bits = static_cast<const std::uint16_t*>(values.view().data);
            rounded.emplace_back(bits, bits + kAll);
        }
        for (std::size_t i = 0; i < runs[0].size(); ++i) expect_same_bits(runs[0][i], runs[1][i]);
        EXPECT_EQ(rounded[0], rounded[1]);
    }
}

}  // namespace
}  // namespace moesaic
