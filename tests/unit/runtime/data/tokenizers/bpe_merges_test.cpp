// Merging one word, against the definition; long words.
#include "runtime/data/tokenizers/bpe_merges.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <string>

#include "runtime/base/philox.h"

namespace moesaic {
namespace {

std::array<i32, 256> bytes_as_tokens() {
    std::array<i32, 256> tokens{};
    for (std::size_t byte = 0; byte < 256; ++byte) tokens[byte] = static_cast<i32>(byte);
    return tokens;
}

/// The definition: as long as neighbours have a merge, the strongest, of equals the leftmost, is made.
std::vector<i32> merged_slowly(std::vector<i32> tokens, const std::vector<BpeMerge>& merges) {
    for (;;) {
        std::size_t best = merges.size(), where = 0;
        for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
            for (std::size_t rank = 0; rank < best; ++rank) {
                if (merges[rank].left != tokens[i] || merges[rank].right != tokens[i + 1]) continue;
                best = rank;
                where = i;
            }
        }
        if (best == merges.size()) return tokens;
        tokens[where] = merges[best].result;
        tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
}

/// Random pairs of letters a to d and of what earlier pairs made.
std::vector<BpeMerge> random_merges(u64 seed, i32 count) {
    const Philox random(seed, "merges");
    std::vector<i32> known{'a', 'b', 'c', 'd'};
    std::set<std::pair<i32, i32>> pairs;
    std::vector<BpeMerge> merges;
    for (u64 draw = 0; std::ssize(merges) < count; ++draw) {
        const auto pick = [&](u64 which) {
            return known[static_cast<std::size_t>(random.uniform(2 * draw + which) *
                                                  static_cast<double>(known.size()))];
        };
        const i32 left = pick(0), right = pick(1);
        if (!pairs.emplace(left, right).second) continue;
        merges.push_back({left, right, 256 + static_cast<i32>(merges.size())});
        known.push_back(merges.back().result);
    }
    return merges;
}

TEST(BpeMerges, AgreeWithTheDefinition) {
    BpeMerges::Workspace workspace;
    for (u64 seed = 0; seed < 40; ++seed) {
        const std::vector<BpeMerge> merges = random_merges(seed, static_cast<i32>(seed % 14) + 1);
        const BpeMerges fast(bytes_as_tokens(), merges);
        const Philox random(seed, "words");
        for (u64 length = 0; length < 60; ++length) {
            std::string word;
            for (u64 i = 0; i < length; ++i)
                word.push_back("abcd"[static_cast<std::size_t>(random.uniform(length * 100 + i) * 4)]);
            std::vector<i32> tokens;
            fast.encode(word, workspace, tokens);
            ASSERT_EQ(tokens, merged_slowly({word.begin(), word.end()}, merges)) << seed << ' ' << word;
        }
    }
}

TEST(BpeMerges, NoMergesAndAppending) {
    const BpeMerges none(bytes_as_tokens(), {});
    BpeMerges::Workspace workspace;
    std::vector<i32> tokens{7};
    none.encode("", workspace, tokens);
    none.encode("\xff\x01", workspace, tokens);
    EXPECT_EQ(tokens, (std::vector<i32>{7, 255, 1}));
}

TEST(BpeMerges, ALongWordTakesItsTimeTimesALogarithm) {
    // Powers of two of one letter: every merge changes the ranks of both neighbours.
    std::vector<BpeMerge> merges{{'a', 'a', 256}};
    for (i32 i = 1; i < 10; ++i) merges.push_back({255 + i, 255 + i, 256 + i});
    const BpeMerges fast(bytes_as_tokens(), merges);
    const auto seconds_for = [&](std::size_t bytes) {
        BpeMerges::Workspace workspace;
        std::vector<i32> tokens;
        const auto start = std::chrono::steady_clock::now();
        fast.encode(std::string(bytes, 'a'), workspace, tokens);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        EXPECT_EQ(tokens.size(), bytes / 1024);
        return time.count();
    };
    const double time = seconds_for(1 << 20);
    RecordProperty("microseconds", static_cast<int>(time * 1e6));
    EXPECT_LT(time, 20.0) << "quadratic: hours";
}

}  // namespace
}  // namespace moesaic
