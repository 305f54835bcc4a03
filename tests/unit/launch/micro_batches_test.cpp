#include "launch/micro_batches.h"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

std::string advice(i64 sequences, i64 size, i64 world) {
    return advice_on_idle_ranks({.sequences = sequences, .size = size, .world = world});
}

TEST(MicroBatches, TellWhenRanksWouldWaitForWantOfThem) {
    EXPECT_EQ(
        advice(16, 16, 4),
        "train.micro_sequences: 16: a batch of 16 sequences is cut into 1, one for a rank at a time, and 4 "
        "ranks have 4 turns for them: in the others they wait; 4 keeps all ranks at work");
    EXPECT_EQ(
        advice(16, 4, 3),
        "train.micro_sequences: 4: a batch of 16 sequences is cut into 4, one for a rank at a time, and 3 "
        "ranks have 6 turns for them: in the others they wait; train.batch_sequences in multiples of 3 "
        "could keep all ranks at work");
    EXPECT_NE(advice(2, 1, 4).find("in multiples of 4"), std::string::npos);
    EXPECT_NE(advice(24, 5, 4).find("; 3 keeps all"), std::string::npos) << "6 each, in parts of at most 5";
}

TEST(MicroBatches, TellNothingWhereMostTurnsAreTaken) {
    EXPECT_EQ(advice(16, 4, 4), "");
    EXPECT_EQ(advice(16, 16, 1), "");
    EXPECT_EQ(advice(28, 4, 8), "") << "7 of 8";
    EXPECT_NE(advice(24, 4, 8), "") << "6 of 8";
}

}  // namespace
}  // namespace moesaic
