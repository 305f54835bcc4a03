// The blend against its definition: shares of every block, every ordinal once, random access, one source.
#include "runtime/data/blend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "runtime/base/types.h"

namespace moesaic {
namespace {

using Weights = std::vector<double>;

const std::vector<Weights>& blends() {
    static const std::vector<Weights> kBlends{
        {1, 1},        {3, 2, 1},           {0, 1, 0, 2, 0},
        {1, 1e-6},     {1e-6, 0.3, 0.7, 0}, {0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1},
        {1e9, 1, 1e8}, Weights(100, 1.0)};
    return kBlends;
}

double share(const Weights& weights, std::size_t source) {
    return weights[source] / std::accumulate(weights.begin(), weights.end(), 0.0);
}

TEST(Blend, EveryBlockHasTheSharesRoundedDownOrUp) {
    for (const Weights& weights : blends()) {
        const Blend blend(weights);
        for (const i64 block : {i64{0}, i64{1}, i64{2}, i64{37}, i64{1000003}, (i64{1} << 41) + 5}) {
            Weights counts(weights.size());
            for (i64 i = 0; i < Blend::kBlock; ++i) ++counts[blend.draw(7, block * Blend::kBlock + i).source];
            for (std::size_t s = 0; s < weights.size(); ++s) {
                EXPECT_LT(std::abs(counts[s] - share(weights, s) * Blend::kBlock), 1 + 1e-9)
                    << "source " << s << " of " << weights.size() << " in block " << block;
                EXPECT_TRUE(weights[s] > 0 || counts[s] == 0) << s;
            }
        }
    }
}

TEST(Blend, FirstNumberFromAnOrdinal) {
    for (const Weights& weights : blends()) {
        const Blend blend(weights);
        for (std::size_t source = 0; source < weights.size(); source += 3) {
            if (share(weights, source) < 0.01) continue;
            for (const i64 ordinal : {0, 1, 5, 20}) {
                i64 number = 0;
                for (;; ++number) {
                    const Blend::Draw draw = blend.draw(3, number);
                    if (draw.source == source && draw.ordinal >= ordinal) break;
                }
                EXPECT_EQ(blend.first_number_from(3, {source, ordinal}), number)
                    << "source " << source << " of " << weights.size() << ", ordinal " << ordinal;
            }
        }
    }
    EXPECT_EQ(Blend({1, 0, 2}).first_number_from(3, {1, 0}), std::nullopt) << "a source without weight";
    EXPECT_EQ(Blend({0, 1}).first_number_from(3, {0, 0}), std::nullopt);
    EXPECT_EQ(Blend({0, 1}).first_number_from(3, {1, 5}), 5);
}

TEST(Blend, EverySourceCountsItsSequencesOnce) {
    for (const Weights& weights : blends()) {
        const Blend blend(weights);
        std::vector<std::vector<bool>> seen(weights.size());
        constexpr i64 kBlocks = 200;
        for (i64 i = 0; i < kBlocks * Blend::kBlock; ++i) {
            const Blend::Draw draw = blend.draw(3, i);
            std::vector<bool>& of_source = seen[draw.source];
            ASSERT_GE(draw.ordinal, 0);
            if (draw.ordinal >= std::ssize(of_source))
                of_source.resize(static_cast<std::size_t>(draw.ordinal) + 1);
            EXPECT_FALSE(of_source[static_cast<std::size_t>(draw.ordinal)])
                << "source " << draw.source << " sequence " << draw.ordinal << " comes twice";
            of_source[static_cast<std::size_t>(draw.ordinal)] = true;
        }
        i64 all = 0;
        for (const std::vector<bool>& of_source : seen) {
            for (const bool one : of_source) EXPECT_TRUE(one) << "an ordinal is left out";
            all += std::ssize(of_source);
        }
        EXPECT_EQ(all, kBlocks * Blend::kBlock);
    }
}

/// The van der Corput sequence: after m blocks the count is off by at most about log2(m)/2 + 1 sequences,
/// where independent draws would be off by a root of their number.
TEST(Blend, SharesOfManyBlocksStayNear) {
    for (const Weights& weights : blends()) {
        const Blend blend(weights);
        std::vector<i64> counts(weights.size());
        for (i64 i = 0; i < 4096 * Blend::kBlock; ++i) {
            ++counts[blend.draw(11, i).source];
            if ((i + 1) % (64 * Blend::kBlock) != 0) continue;
            for (std::size_t s = 0; s < weights.size(); ++s) {
                const double expected = share(weights, s) * static_cast<double>(i + 1);
                ASSERT_LT(std::abs(static_cast<double>(counts[s]) - expected), 8) << s << " after " << i + 1;
            }
        }
    }
}

TEST(Blend, ALittleWeightComesAboutAsOftenAsItSays) {
    const Blend blend({1, 1e-3});
    std::vector<i64> at;
    for (i64 i = 0; i < 100000; ++i)
        if (blend.draw(1, i).source == 1) at.push_back(i);
    EXPECT_NEAR(static_cast<double>(at.size()), 100000 * 1e-3 / 1.001, 2);
    for (std::size_t i = 1; i < at.size(); ++i) EXPECT_LT(at[i] - at[i - 1], 2200) << "bunched or starved";
}

TEST(Blend, OrderDependsOnTheSeedAndTheNumberAlone) {
    const Blend blend({2, 1}), other({2, 1});
    std::vector<Blend::Draw> forwards, backwards(1000);
    for (i64 i = 0; i < 1000; ++i) forwards.push_back(blend.draw(5, i));
    for (i64 i = 1000; i-- > 0;) backwards[static_cast<std::size_t>(i)] = other.draw(5, i);
    i64 moved = 0;
    for (std::size_t i = 0; i < 1000; ++i) {
        EXPECT_EQ(forwards[i].source, backwards[i].source);
        EXPECT_EQ(forwards[i].ordinal, backwards[i].ordinal);
        moved += blend.draw(6, static_cast<i64>(i)).source != forwards[i].source ? 1 : 0;
    }
    EXPECT_GT(moved, 200) << "another seed gives another order";
}

TEST(Blend, ASingleSourceKeepsItsOrder) {
    for (const Weights& weights : {Weights{5}, Weights{0, 5, 0}}) {
        const Blend blend(weights);
        for (const i64 number : {i64{0}, i64{1}, i64{63}, i64{64}, i64{1} << 40}) {
            const Blend::Draw draw = blend.draw(1, number);
            EXPECT_EQ(draw.source, weights.size() / 2);
            EXPECT_EQ(draw.ordinal, number);
        }
    }
}

}  // namespace
}  // namespace moesaic
