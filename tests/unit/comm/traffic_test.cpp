// The traffic zoo against its definitions: what is exact to the row, what is a distribution to chi-square.
#include "comm/traffic/traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <set>

#include "runtime/base/error.h"
#include "runtime/data/npy.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<i32> route(const TrafficPattern& traffic, i64 first, i64 count, i64 step = 3, int layer = 1) {
    std::vector<i32> experts(static_cast<std::size_t>(count * traffic.shape().top_k), -7);
    traffic.route(step, layer, first, count, experts);
    return experts;
}

std::vector<i64> loads(const TrafficPattern& traffic, const std::vector<i32>& experts) {
    std::vector<i64> load(static_cast<std::size_t>(traffic.shape().experts));
    for (const i32 expert : experts) ++load.at(static_cast<std::size_t>(expert));
    return load;
}

/// A text of every kind in the table that needs no file of its own, and files for those that do.
std::vector<std::string> every_pattern(const ScratchFolder& scratch, i64 experts, i64 top_k, int ranks) {
    RankMatrix matrix{ranks, {}};
    for (int i = 0; i < ranks * ranks; ++i) matrix.amount.push_back(160 * ((i * 7) % 5));
    matrix.amount[0] = 16;
    write_rank_matrix(scratch / "matrix", matrix);
    std::vector<i32> rows;
    for (i64 t = 0; t < 5; ++t) {
        for (i64 k = 0; k < top_k; ++k) rows.push_back(static_cast<i32>((t + k) % experts));
    }
    write_npy(scratch / "trace.npy", rows, {5, top_k});
    std::vector<std::string> texts;
    for (const TrafficKind& kind : traffic_table()) {
        if (kind.name == "empty_rank" && ranks == 1) continue;
        std::string text(kind.name);
        if (kind.name == "matrix") text += ":" + (scratch / "matrix");
        if (kind.name == "trace") text += ":" + (scratch / "trace.npy");
        texts.push_back(text);
    }
    return texts;
}

TEST(Traffic, EveryTokenChoosesDifferentExperts) {
    const ScratchFolder scratch;
    struct Case {
        i64 experts, top_k;
        int ranks;
    };
    for (const Case& c : {Case{8, 2, 4}, Case{64, 8, 4}, Case{6, 1, 2}, Case{12, 5, 2}, Case{9, 4, 3}}) {
        for (const std::string& text : every_pattern(scratch, c.experts, c.top_k, c.ranks)) {
            SCOPED_TRACE(text);
            const auto traffic = make_traffic(text, {c.experts, c.top_k, c.ranks, 100, 5});
            const std::vector<i32> experts = route(*traffic, 17, 400);
            for (auto token = experts.begin(); token != experts.end(); token += c.top_k) {
                const std::set<i32> different(token, token + c.top_k);
                ASSERT_EQ(std::ssize(different), c.top_k);
                ASSERT_GE(*different.begin(), 0);
                ASSERT_LT(*different.rbegin(), c.experts);
            }
        }
    }
}

TEST(Traffic, DecisionsDependOnTheTokenNotOnWhoAsks) {
    const ScratchFolder scratch;
    for (const std::string& text : every_pattern(scratch, 12, 5, 2)) {
        SCOPED_TRACE(text);
        const auto traffic = make_traffic(text, {12, 5, 2, 64, 5});
        const std::vector<i32> whole = route(*traffic, 0, 300);
        std::vector<i32> pieces;
        for (i64 first = 0, size = 1; first < 300; first += size, size = size * 3 % 31 + 1) {
            const std::vector<i32> piece = route(*traffic, first, std::min(size, 300 - first));
            pieces.insert(pieces.end(), piece.begin(), piece.end());
        }
        EXPECT_EQ(whole, pieces);
        EXPECT_EQ(whole, route(*make_traffic(text, {12, 5, 2, 64, 5}), 0, 300)) << "not a function";
        if (text.starts_with("trace")) continue;
        EXPECT_NE(whole, route(*make_traffic(text, {12, 5, 2, 64, 6}), 0, 300)) << "the seed is ignored";
        EXPECT_NE(whole, route(*traffic, 0, 300, 4)) << "the step is ignored";
        EXPECT_NE(whole, route(*traffic, 0, 300, 3, 2)) << "the layer is ignored";
    }
}

TEST(Traffic, UniformIsExactOverWholeBlocks) {
    for (const auto& [experts, top_k] : {std::pair<i64, i64>{8, 2}, {64, 8}, {12, 5}, {7, 3}, {4, 4}}) {
        const auto traffic = make_traffic("uniform", {experts, top_k, 1, 1, 9});
        const i64 block = std::lcm(experts, top_k) / top_k;
        EXPECT_THAT(loads(*traffic, route(*traffic, 5 * block, 6 * block)),
                    testing::Each(6 * block * top_k / experts));
        const std::vector<i64> part = loads(*traffic, route(*traffic, 0, block / 2));
        EXPECT_LE(*std::max_element(part.begin(), part.end()) - *std::min_element(part.begin(), part.end()),
                  1);
    }
}

TEST(Traffic, HotSetsGetExactlyTheirShare) {
    for (const double share : {0.0, 0.1, 0.5, 0.77, 1.0}) {
        for (const i64 tokens : {1, 37, 1000}) {
            const auto expected = static_cast<i64>(std::floor(share * static_cast<double>(tokens)));
            const auto one = make_traffic(fmt::format("hot_expert:{},expert=5", share), {8, 2, 4, 1, 9});
            const std::vector<i64> load = loads(*one, route(*one, 0, tokens));
            EXPECT_EQ(load[5], expected);
            const auto rank = make_traffic(fmt::format("hot_rank:{},rank=2", share), {8, 2, 4, 1, 9});
            const std::vector<i64> by_expert = loads(*rank, route(*rank, 0, tokens));
            EXPECT_EQ(by_expert[4] + by_expert[5], 2 * expected);
            EXPECT_LE(std::abs(by_expert[4] - by_expert[5]), 1);
        }
    }
    // The others share the rest: in a block of E tokens no two differ by more than a row.
    const auto traffic = make_traffic("hot_expert:0.4,expert=5", {8, 2, 4, 1, 9});
    for (i64 block = 0; block < 20; ++block) {
        std::vector<i64> others = loads(*traffic, route(*traffic, 8 * block, 8));
        others.erase(others.begin() + 5);
        EXPECT_LE(
            *std::max_element(others.begin(), others.end()) - *std::min_element(others.begin(), others.end()),
            1);
    }
    // A rank with fewer experts than choices takes what fits.
    const auto narrow = make_traffic("hot_rank:0.5", {8, 5, 4, 1, 9});
    const std::vector<i64> load = loads(*narrow, route(*narrow, 0, 100));
    EXPECT_EQ(load[0] + load[1], 2 * 50);
}

TEST(Traffic, RotatingAndBurst) {
    const auto rotating = make_traffic("rotating:1", {8, 2, 1, 1, 9});
    EXPECT_EQ(rotating->period(), 8);
    for (const i64 step : {0, 1, 7, 8, 21}) {
        for (const int layer : {0, 3})
            EXPECT_EQ(loads(*rotating, route(*rotating, 0, 50, step,
                                             layer))[static_cast<std::size_t>((step + layer) % 8)],
                      50);
    }
    const auto burst = make_traffic("burst:0.9,period=3", {8, 2, 1, 1, 9});
    EXPECT_EQ(burst->period(), 3);
    EXPECT_EQ(loads(*burst, route(*burst, 0, 80, 3))[0], 72);
    EXPECT_EQ(loads(*burst, route(*burst, 0, 80, 6))[0], 72);
    EXPECT_THAT(loads(*burst, route(*burst, 0, 80, 4)), testing::Each(20));
}

TEST(Traffic, TokensOfRanks) {
    const auto tokens = [](const std::string& text, const PatternShape& shape) {
        const auto traffic = make_traffic(text, shape);
        std::vector<i64> all;
        for (int rank = 0; rank < shape.ranks; ++rank) {
            EXPECT_EQ(traffic->first_token(rank), std::accumulate(all.begin(), all.end(), i64{0}));
            all.push_back(traffic->tokens_of_rank(rank));
        }
        return all;
    };
    EXPECT_THAT(tokens("ragged", {8, 2, 4, 100, 1}), ElementsAre(25, 75, 125, 175));
    EXPECT_THAT(tokens("ragged", {9, 2, 3, 1, 1}), ElementsAre(0, 1, 2));
    EXPECT_THAT(tokens("empty_rank:2", {8, 2, 4, 100, 1}), ElementsAre(100, 100, 0, 100));
    EXPECT_THAT(tokens("zipf:1", {8, 2, 4, 100, 1}), ElementsAre(100, 100, 100, 100));
    const RankMatrix rows = count_rows(*make_traffic("empty_rank:2", {8, 2, 4, 100, 1}), 1, 0);
    EXPECT_EQ(rows.sent_by(2) + rows.received_by(2), 0);
    EXPECT_EQ(rows.sent_by(0), 200);
}

/// Sum of (seen - expected)^2 / expected is below its mean plus five standard deviations.
void expect_distribution(const std::vector<i64>& seen, std::vector<double> weight) {
    const double draws = static_cast<double>(std::accumulate(seen.begin(), seen.end(), i64{0}));
    const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
    double chi_square = 0, cells = 0;
    for (std::size_t i = 0; i < seen.size(); ++i) {
        const double expected = draws * weight[i] / sum;
        if (expected == 0) {
            EXPECT_EQ(seen[i], 0) << i;
            continue;
        }
        chi_square += std::pow(static_cast<double>(seen[i]) - expected, 2) / expected;
        ++cells;
    }
    EXPECT_LT(chi_square, (cells - 1) + 5 * std::sqrt(2 * (cells - 1)));
}

TEST(Traffic, DrawsFollowTheirWeights) {
    constexpr i64 kExperts = 16;
    std::vector<double> zipf, even(kExperts, 1.0);
    for (i64 e = 1; e <= kExperts; ++e) zipf.push_back(std::pow(static_cast<double>(e), -1.3));
    const auto zipf_traffic = make_traffic("zipf:1.3", {kExperts, 1, 1, 1, 3});
    const std::vector<i64> seen = loads(*zipf_traffic, route(*zipf_traffic, 0, 40000));
    expect_distribution(seen, zipf);
    const auto random = make_traffic("random", {kExperts, 1, 1, 1, 3});
    expect_distribution(loads(*random, route(*random, 0, 40000)), even);

    // Second choices: P(a then b) = p_a p_b / (1 - p_a).
    const auto pairs = make_traffic("zipf:1", {3, 2, 1, 1, 3});
    const std::vector<i32> experts = route(*pairs, 0, 40000);
    std::vector<i64> counts(9);
    for (std::size_t i = 0; i < experts.size(); i += 2)
        ++counts[static_cast<std::size_t>(experts[i] * 3 + experts[i + 1])];
    const double p[] = {6.0 / 11, 3.0 / 11, 2.0 / 11};
    std::vector<double> expected;
    for (int a = 0; a < 3; ++a) {
        for (int b = 0; b < 3; ++b) expected.push_back(a == b ? 0 : p[a] * p[b] / (1 - p[a]));
    }
    expect_distribution(counts, expected);

    // The logarithms of log-normal popularities have standard deviation S; the same in every step.
    const auto wide = make_traffic("lognormal:0.5", {256, 1, 1, 1, 3});
    double sum = 0, squares = 0;
    for (const i64 load : loads(*wide, route(*wide, 0, 400000))) {
        const double log = std::log(static_cast<double>(load));
        sum += log;
        squares += log * log;
    }
    EXPECT_NEAR(std::sqrt(squares / 256 - sum / 256 * (sum / 256)), 0.5, 0.08);
    const auto peak = [&](i64 step) {
        const std::vector<i64> load = loads(*wide, route(*wide, 0, 100000, step));
        return std::max_element(load.begin(), load.end()) - load.begin();
    };
    EXPECT_EQ(peak(1), peak(2));
}

TEST(Traffic, RanksOfAMatrixShareAsItSays) {
    const ScratchFolder scratch;
    write_rank_matrix(scratch / "m", {3, {0, 100, 300, 500, 0, 300, 0, 0, 0}});
    const auto traffic = make_traffic("matrix:" + (scratch / "m"), {6, 1, 3, 4000, 3});
    EXPECT_EQ(traffic->tokens_of_rank(0), 4000);
    EXPECT_EQ(traffic->tokens_of_rank(1), 8000);
    EXPECT_EQ(traffic->tokens_of_rank(2), 0);
    const RankMatrix rows = count_rows(*traffic, 1, 0);
    expect_distribution({rows.at(0, 0), rows.at(0, 1), rows.at(0, 2)}, {0, 100, 300});
    expect_distribution({rows.at(1, 0), rows.at(1, 1), rows.at(1, 2)}, {500, 0, 300});
    EXPECT_EQ(rows.sent_by(2), 0);
    // However the shares round, no token is lost.
    write_rank_matrix(scratch / "odd", {3, {100, 0, 0, 100, 0, 0, 104, 0, 0}});
    const auto odd = make_traffic("matrix:" + (scratch / "odd"), {6, 1, 3, 1, 3});
    EXPECT_EQ(odd->tokens_of_rank(0) + odd->tokens_of_rank(1) + odd->tokens_of_rank(2), 3);
    // A trainer's tokens go on after those of the last rank, from the first again.
    write_rank_matrix(scratch / "diagonal", {3, {10, 0, 0, 0, 10, 0, 0, 0, 10}});
    const auto diagonal = make_traffic("matrix:" + (scratch / "diagonal"), {6, 1, 3, 40, 3});
    const std::vector<i32> twice = route(*diagonal, 0, 240);
    for (std::size_t token = 0; token < 240; ++token) EXPECT_EQ(twice[token] / 2, token % 120 / 40) << token;
    // More choices than the ranks with any weight hold experts: the rest is drawn from the others.
    const auto crowded = make_traffic("matrix:" + (scratch / "m"), {3, 3, 3, 10, 3});
    EXPECT_EQ(loads(*crowded, route(*crowded, 0, 10))[0], 10);
}

TEST(RankBytes, AreThoseOfNcclTests) {
    const auto bytes = [](const std::string& text, i64 size) {
        return make_traffic(text, {8, 2, 4, 1, 1})->rank_bytes(size, 16).value().amount;
    };
    EXPECT_THAT(bytes("spread:1", 960),
                ElementsAre(0, 160, 320, 480, 480, 0, 160, 320, 320, 480, 0, 160, 160, 320, 480, 0));
    const std::vector<i64> half = bytes("spread:0.5", 960);
    EXPECT_THAT(std::vector<i64>(half.begin(), half.begin() + 4), ElementsAre(112, 192, 272, 352));
    EXPECT_THAT(bytes("spread:0", 960), testing::Each(240));
    EXPECT_THAT(bytes("uniform", 1000), testing::Each(240));  // 250 rounded down to 16
    EXPECT_FALSE(make_traffic("ragged", {8, 2, 4, 1, 1})->rank_bytes(960, 16).has_value());
    EXPECT_FALSE(make_traffic("zipf:1", {8, 2, 4, 1, 1})->rank_bytes(960, 16).has_value());
}

TEST(RankBytes, SumsOfAMatrix) {
    const RankMatrix matrix{2, {1, 2, 3, 5}};
    EXPECT_EQ(matrix.sent_by(0), 3);
    EXPECT_EQ(matrix.received_by(0), 4);
    EXPECT_EQ(matrix.busiest(), 8);
}

TEST(RankBytes, FilesOfMatrices) {
    const ScratchFolder scratch;
    const std::string file = scratch / "matrix";
    const auto write = [&](const std::string& text) { std::ofstream(file) << text; };
    write("100  200\t150\n\n 50 1e2 75 \n300 150 200");
    EXPECT_THAT(read_rank_matrix(file).amount, ElementsAre(100, 200, 150, 50, 100, 75, 300, 150, 200));
    const auto two = make_traffic("matrix:" + file, {8, 2, 2, 1, 1});
    EXPECT_EQ(two->natural_bytes(), 300);  // of the first two ranks: 100 200 / 50 100
    EXPECT_THAT(two->rank_bytes(300, 16).value().amount, ElementsAre(96, 192, 48, 96));
    EXPECT_THAT(two->rank_bytes(600, 16).value().amount, ElementsAre(192, 400, 96, 192));
    const RankMatrix matrix{3, {1, 2, 3, 4, 5, 6, 7, 8, 9}};
    write_rank_matrix(file, matrix);
    EXPECT_EQ(read_rank_matrix(file).amount, matrix.amount);
    const auto mistake = [&](const std::string& text) {
        write(text);
        try {
            (void)read_rank_matrix(file);
        } catch (const UserError& error) {
            return std::string(error.what());
        }
        return std::string("none");
    };
    EXPECT_THAT(mistake("1 2\n3 x\n"), HasSubstr(":2: 'x' is no number of bytes"));
    EXPECT_THAT(mistake("1 2\n3 -4\n"), HasSubstr(":2: '-4'"));
    EXPECT_THAT(mistake("1 2\n3\n"), HasSubstr(":2: 1 numbers, where the first line has 2"));
    EXPECT_THAT(mistake("1 2\n"), HasSubstr("1 lines of 2 numbers"));
    EXPECT_THAT(mistake(""), HasSubstr("0 lines"));
    EXPECT_THROW((void)read_rank_matrix(scratch / "absent"), UserError);
    write("1 2\n3 4\n");
    EXPECT_THROW((void)make_traffic("matrix:" + file, {9, 2, 3, 1, 1}), UserError);
    write("0 0\n0 0\n");
    EXPECT_THROW((void)make_traffic("matrix:" + file, {8, 2, 2, 1, 1}), UserError);
}

TEST(Traffic, CountsRowsOfAllRanks) {
    const auto traffic = make_traffic("zipf:1", {6, 2, 3, 50, 4});
    std::vector<i64> expected(9);
    for (i64 token = 0; token < 150; ++token) {
        for (const i32 expert : route(*traffic, token, 1, 2, 0))
            ++expected[static_cast<std::size_t>(token / 50 * 3 + expert / 2)];
    }
    const RankMatrix rows = count_rows(*traffic, 2, 0);
    EXPECT_EQ(rows.amount, expected);
    EXPECT_EQ(rows.busiest(), rows.received_by(0));
}

std::string mistakes_of(const std::string& text, const PatternShape& shape) {
    try {
        (void)make_traffic(text, shape);
    } catch (const UserError& error) {
        return error.what();
    }
    return "none";
}

TEST(Traffic, TellsAllMistakesAtOnce) {
    const PatternShape shape{8, 2, 4, 1, 1};
    EXPECT_THAT(mistakes_of("zipff:1", shape), HasSubstr("did you mean 'zipf'?"));
    EXPECT_THAT(mistakes_of("noise", shape), HasSubstr("one of uniform, random, zipf:S"));
    const std::string three = mistakes_of("hot_expert:2,expert=1.5,color=red", shape);
    EXPECT_THAT(three, HasSubstr("share is '2'; a number from 0 to 1\n"));
    EXPECT_THAT(three, HasSubstr("expert is '1.5'; a whole number"));
    EXPECT_THAT(three, HasSubstr("'color=red' is no parameter of it; share, expert"));
    EXPECT_THAT(mistakes_of("hot_expert:0.5,0.7", shape), HasSubstr("'0.7' is no parameter of it"));
    EXPECT_THAT(mistakes_of("uniform:1", shape), HasSubstr("it takes none"));
    EXPECT_THAT(mistakes_of("zipf:nan", shape), HasSubstr("S is 'nan'"));
    EXPECT_THAT(mistakes_of("zipf:1,ranks=2", shape), HasSubstr("no parameter"));
    EXPECT_THAT(mistakes_of("ragged:ranks=3", shape), HasSubstr("8 experts do not divide among 3 ranks"));
    EXPECT_THAT(mistakes_of("matrix", shape), HasSubstr("no file"));
    EXPECT_THAT(mistakes_of("hot_expert:0.5,expert=8", shape), HasSubstr("expert 8 of 8"));
    EXPECT_THAT(mistakes_of("hot_rank:0.5,rank=4", shape), HasSubstr("rank 4 of 4"));
    EXPECT_THAT(mistakes_of("uniform", {8, 9, 4, 1, 1}), HasSubstr("9 of 8 experts"));
    EXPECT_THAT(mistakes_of("empty_rank", {8, 7, 4, 1, 1}), HasSubstr("7 of the 6 other experts"));
    EXPECT_THAT(mistakes_of("empty_rank", {8, 2, 1, 1, 1}), HasSubstr("2 of the 0 other experts"));
    // Every choice may go to a hot set when every token does.
    EXPECT_EQ(mistakes_of("hot_rank:1", {8, 2, 1, 1, 1}), "none");
    EXPECT_EQ(make_traffic("hot_rank:0.5,rank=1,ranks=2", shape)->shape().ranks, 2);
}

TEST(Traffic, TracesAreChecked) {
    const ScratchFolder scratch;
    const std::string file = scratch / "t.npy";
    const auto mistake = [&](const std::vector<i32>& ids, i64 rows, i64 columns) {
        write_npy(file, ids, {rows, columns});
        return mistakes_of("trace:" + file, {4, 2, 2, 1, 1});
    };
    EXPECT_EQ(mistake({0, 1, 2, 3}, 2, 2), "none");
    EXPECT_THAT(route(*make_traffic("trace:" + file, {4, 2, 2, 1, 1}), 1, 3), ElementsAre(2, 3, 0, 1, 2, 3));
    EXPECT_THAT(mistake({0, 1, 2, 4}, 2, 2), HasSubstr("row 1: expert 4 of 4"));
    EXPECT_THAT(mistake({0, 1, 2, 2}, 2, 2), HasSubstr("row 1 has expert 2 twice"));
    EXPECT_THAT(mistake({0, 1, 2, 3}, 1, 4), HasSubstr("1 x 4 ids"));
}

}  // namespace
}  // namespace moesaic
