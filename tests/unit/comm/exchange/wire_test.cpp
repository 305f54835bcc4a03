// Rows in the wire's type: rounded once by definition, and bytes of that type.
#include "comm/exchange/wire.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/exchange_bench.h"

namespace moesaic {
namespace {

constexpr i64 kWidth = 3;

float value_of(int source, int receiver, i64 column) {
    return (1.0f + static_cast<float>(source) / 3.0f) * std::pow(1.7f, static_cast<float>(receiver - column));
}

/// The nearest number with eight significant bits, ties to even, by arithmetic alone.
float nearest_with_eight_bits(float value) {
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);  // in [0.5, 1)
    return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8));
}

/// Every rank sends a row to each; what rank 1 received.
std::vector<float> received(std::optional<DType> type, SentBytes& sent) {
    std::vector<float> rows;
    run_ranks(3, [&](Communicator& world) {
        RankSetup setup(world, 3, 3);
        const SentBytes before = world.ledger().of("rows");
        Tensor out = setup.backend->allocate({3, kWidth}, DType::f32);
        Tensor in = setup.backend->allocate({3, kWidth}, DType::f32);
        for (int receiver = 0; receiver < 3; ++receiver) {
            for (i64 column = 0; column < kWidth; ++column)
                out.as<float>()[receiver * kWidth + column] = value_of(world.rank(), receiver, column);
        }
        const std::vector<i64> one_each(3, 1);
        Wire(type).exchange(setup.context, setup.mesh.experts(),
                            {.send = out,
                             .send_rows = one_each,
                             .most_sent = 3,
                             .recv = in,
                             .recv_rows = one_each,
                             .most_received = 3},
                            {"rows"});
        if (world.rank() != 1) return;
        rows = setup.read<float>(in);
        sent = world.ledger().of("rows") - before;
    });
    return rows;
}

TEST(Wire, RoundsRowsOnceToTheNearest) {
    SentBytes narrow, wide, plain;
    const std::vector<float> rounded = received(DType::bf16, narrow);
    const std::vector<float> exact = received(std::nullopt, plain);
    EXPECT_EQ(received(DType::f32, wide), exact);
    ASSERT_EQ(exact.size(), 9u);
    i64 changed = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
        EXPECT_EQ(exact[i], value_of(static_cast<int>(i) / 3, 1, static_cast<i64>(i) % 3));
        EXPECT_EQ(rounded[i], nearest_with_eight_bits(exact[i]));
        changed += rounded[i] != exact[i];
    }
    EXPECT_GT(changed, 4);
    EXPECT_EQ(plain.same_node, 2 * kWidth * 4);
    EXPECT_EQ(wide, plain);
    EXPECT_EQ(2 * narrow.same_node, plain.same_node);
    EXPECT_EQ(2 * narrow.self, plain.self);
}

}  // namespace
}  // namespace moesaic
