// Activations of a product's result that is rounded to bf16 on its way: the bits of one after the other.
#include "runtime/cpu/activation.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <memory>
#include <vector>

#include "runtime/base/host_memory.h"
#include "runtime/base/philox.h"
#include "runtime/bfloat16.h"
#include "runtime/cpu/elementwise.h"
#include "tests/unit/runtime/cpu/cpu_target.h"

namespace moesaic {
namespace {

/// Ordinary numbers, and every 7th one that rounding has to take care of: zeros, denormal numbers of both
/// types, what rounds to them, ties, infinities, NaN with few and with many bits.
std::vector<float> results(i64 count, u64 seed) {
    const std::vector<u32> special{0x00000000, 0x80000000, 0x00000001, 0x80007fff, 0x00008000, 0x007fffff,
                                   0x807f8000, 0x00800000, 0x3f808000, 0x3f818000, 0xbf808001, 0x7f7fffff,
                                   0x7f800000, 0xff800000, 0x7f800001, 0xffc00000, 0x7fffffff, 0x00ffffff};
    const Philox random(seed, "activation test");
    std::vector<float> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = i % 7 == 0 ? std::bit_cast<float>(special[i / 7 % special.size()])
                               : static_cast<float>(4 * random.normal(i));
    return values;
}

std::vector<std::uint16_t> bits_of(const std::vector<BFloat16>& values) {
    std::vector<std::uint16_t> bits;
    for (const BFloat16 value : values) bits.push_back(value.bits);
    return bits;
}

struct Block {
    ActivationKind kind;
    i64 rows, columns, gap;  // elements between rows
    bool streamed;

    [[nodiscard]] i64 halves() const { return activation_halves(kind); }
    [[nodiscard]] cpu::ActivationBlock part() const {
        const i64 half = columns + gap;
        return {kind, DType::bf16, rows, columns, halves() * half, half, half, 0.25};
    }
    /// Elements of the operands x and y.
    [[nodiscard]] std::size_t wide() const { return at(rows * part().x_row_stride); }
    [[nodiscard]] std::size_t narrow() const { return at(rows * part().y_row_stride); }
    [[nodiscard]] cpu::RowBlock to_round(i64 wide_stride, i64 narrow_stride) const {
        return {rows, columns, wide_stride, narrow_stride};
    }

  private:
    static std::size_t at(i64 element) { return static_cast<std::size_t>(element); }
};

/// With the CPU's instruction for rounding, where it has one, and without.
class RoundedActivation : public CpuTargetTest {
  protected:
    template <class Check>
    static void for_blocks(const Check& check) {
        for (const ActivationKind kind :
             {ActivationKind::swiglu, ActivationKind::gelu, ActivationKind::relu, ActivationKind::prelu})
            for (const i64 columns : {1, 15, 16, 48, 65, 192})
                for (const i64 gap : {0, 3, 16})
                    for (const bool streamed : {false, true}) check(Block{kind, 5, columns, gap, streamed});
    }
};
INSTANTIATE_TEST_SUITE_P(Targets, RoundedActivation, ::testing::Values(i64{HWY_AVX3}, i64{HWY_AVX2}),
                         name_of_target);

TEST_P(RoundedActivation, HasTheBitsOfRoundingFirst) {
    for_blocks([](const Block& block) {
        const cpu::ActivationBlock part = block.part();
        const i64 c_half = block.columns + 1, c_stride = block.halves() * c_half;
        const std::vector<float> c = results(block.rows * c_stride, 1);
        std::vector<BFloat16> want_x(block.wide()), want_y(block.narrow()), y(block.narrow());
        const std::unique_ptr<void, decltype(&std::free)> memory(allocate_host_memory(std::ssize(want_x) * 2),
                                                                 &std::free);
        auto* const x = static_cast<BFloat16*>(memory.get());
        std::fill_n(x, want_x.size(), BFloat16{});
        for (i64 half = 0; half < block.halves(); ++half)
            cpu::round_rows(block.to_round(c_stride, part.x_row_stride), c.data() + half * c_half,
                            want_x.data() + half * part.half);
        cpu::activate(part, want_x.data(), want_y.data());
        cpu::round_and_activate(part, {c.data(), c_stride, c_half, block.streamed}, x, y.data());
        EXPECT_EQ(bits_of({x, x + want_x.size()}), bits_of(want_x));
        EXPECT_EQ(bits_of(y), bits_of(want_y)) << kActivations[static_cast<std::size_t>(block.kind)].name
                                               << " " << block.columns << " columns, gap " << block.gap;
    });
}

TEST_P(RoundedActivation, BackwardHasTheBitsOfRoundingFirst) {
    for_blocks([](const Block& block) {
        const cpu::ActivationBlock part = block.part();
        const i64 stride = block.columns + 5;
        const std::vector<float> dy = results(block.rows * stride, 2),
                                 real_x = results(static_cast<i64>(block.wide()), 3);
        std::vector<BFloat16> x(block.wide()), rounded(block.narrow()), want(block.wide()), dx(block.wide());
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = to_bfloat16(real_x[i]);
        cpu::round_rows(block.to_round(stride, part.y_row_stride), dy.data(), rounded.data());
        cpu::activate_backward(part, x.data(), rounded.data(), want.data());
        cpu::round_and_activate_backward(part, x.data(), {dy.data(), stride}, dx.data());
        EXPECT_EQ(bits_of(dx), bits_of(want)) << block.columns << " columns, gap " << block.gap;
        std::vector<BFloat16> in_place = x;
        cpu::round_and_activate_backward(part, in_place.data(), {dy.data(), stride}, in_place.data());
        for (i64 row = 0; row < block.rows; ++row)
            for (i64 half = 0; half < block.halves(); ++half)
                for (i64 column = 0; column < block.columns; ++column) {
                    const auto i =
                        static_cast<std::size_t>(row * part.x_row_stride + half * part.half + column);
                    ASSERT_EQ(in_place[i].bits, want[i].bits) << "in place, at " << i;
                }
    });
}

}  // namespace
}  // namespace moesaic
