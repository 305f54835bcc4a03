// The options of `moesaic bound`: lists make tables, and every mistake is reported at once.
#include "launch/commands/bound_points.h"

#include <gmock/gmock.h>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

using Values = std::map<std::string, std::string>;

BoundOptions with(const Values& values) {
    BoundOptions options;
    options.values = values;
    return options;
}

std::string mistakes(const BoundOptions& options) {
    try {
        (void)read_bound_points(options);
    } catch (const UserError& error) {
        return error.what();
    }
    return "";
}

TEST(BoundPoints, ListsMakeEveryCombinationThatExists) {
    const BoundPoints request = read_bound_points(with({{"--experts", "4,8"},
                                                        {"--top-k", "1,8"},
                                                        {"--samples", "1e3,1e4,2000"},
                                                        {"--router-inputs", "16"}}));
    EXPECT_TRUE(request.table);
    ASSERT_EQ(request.points.size(), 9u) << "4 experts cannot have 8 active";
    EXPECT_EQ(*request.points.front().experts, 4);
    EXPECT_EQ(*request.points[1].samples, 1e4) << "samples run fastest";
    EXPECT_EQ(*request.points.back().top_k, 8);
    EXPECT_EQ(*request.points.back().samples, 2000);
    EXPECT_EQ(request.bounds.size(), 4u) << "the four gates";
}

TEST(BoundPoints, OneOfEachIsNoTable) {
    const BoundPoints request = read_bound_points(
        with({{"--heldout-samples", "287"}, {"--heldout-errors", "7"}, {"--router-hidden", "32,16"}}));
    EXPECT_FALSE(request.table);
    ASSERT_EQ(request.points.size(), 1u);
    EXPECT_EQ(request.points.front().router_hidden, (std::vector<double>{32, 16}));
    ASSERT_EQ(request.bounds.size(), 1u);
    EXPECT_EQ(request.bounds.front()->name, "heldout_binomial");
}

TEST(BoundPoints, EffectiveExpertsAreAtMostTheActiveOnes) {
    const Values values{{"--samples", "1e4"}, {"--experts", "8"}, {"--top-k", "2"}, {"--k-eff", "3"}};
    EXPECT_NE(mistakes(with(values)).find("--k-eff: 3 is above top_k 2"), std::string::npos);
    BoundOptions options = with(values);
    options.gate = "softmax-all";
    EXPECT_EQ(mistakes(options), "") << "whose weights sum to less than 1";
    Values rounded = values;
    rounded["--k-eff"] = "2.0000001";
    EXPECT_EQ(mistakes(with(rounded)), "") << "as measured";
    Values one_of_two = values;
    one_of_two["--top-k"] = "1,4";
    EXPECT_NE(mistakes(with(one_of_two)).find("--k-eff: 3 is above top_k 1"), std::string::npos);
}

TEST(BoundPoints, EveryMistakeAtOnce) {
    BoundOptions options = with({{"--experts", "x"},
                                 {"--top-k", "1.5"},
                                 {"--samples", "1e99"},
                                 {"--delta", "1"},
                                 {"--norm", ""},
                                 {"--radius", "nan"},
                                 {"--range", "1,2"},
                                 {"--rank-weights", "0.5,y"}});
    options.unknown = {"--sampels", "--experts2"};
    options.gate = "soft";
    const std::string text = mistakes(options);
    for (const char* line :
         {"moesaic bound: --experts: 'x' is not a number; between 1 and 65536\n",
          "moesaic bound: --top-k: '1.5' is not a whole number; ",
          "moesaic bound: --samples: '1e99' is out of range; ",
          "moesaic bound: --delta: '1' is out of range; ", "moesaic bound: --norm: has no number; ",
          "moesaic bound: --radius: 'nan' is not a number; ",
          "moesaic bound: --range: '1,2' is a list; one number",
          "moesaic bound: --rank-weights: 'y' is not a number; ",
          "moesaic bound: --sampels: is no option; did you mean '--samples'?",
          "moesaic bound: --experts2: is no option; did you mean '--experts'?",
          "moesaic bound: --gate: 'soft' is unknown; one of: uniform, rank, softmax, softmax-all, frozen"}) {
        EXPECT_THAT(text, testing::HasSubstr(line));
    }
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 10) << text;
}

TEST(BoundPoints, WhatContradictsItself) {
    BoundOptions options = with({{"--experts", "4"},
                                 {"--top-k", "5"},
                                 {"--samples", "10"},
                                 {"--heldout-samples", "5"},
                                 {"--heldout-errors", "6"}});
    options.bounds = "publishd,published,corrected_rank";
    const std::string text = mistakes(options);
    for (const char* line :
         {"--top-k: 5 is above experts 4; a token visits each expert at most once",
          "--heldout-errors: 6 is above heldout_samples 5; ",
          "--bounds: 'publishd' is no bound; did you mean 'published'?",
          "--bounds: 'published' lacks numbers; give --rademacher, --natarajan",
          "--bounds: 'corrected_rank' lacks numbers; give --router-inputs or --natarajan, --rank-weights"}) {
        EXPECT_THAT(text, testing::HasSubstr(line));
    }
    EXPECT_THAT(mistakes(with({{"--experts", "4,8"}, {"--top-k", "9,10"}, {"--samples", "10"}})),
                testing::HasSubstr("--top-k: every number is above every number of --experts; "));
}

TEST(BoundPoints, NothingToCompute) {
    EXPECT_THAT(mistakes({}), testing::HasSubstr("not enough for any bound; try --samples"));
    BoundOptions options;
    options.run = "runs/quad";
    EXPECT_THAT(mistakes(options), testing::HasSubstr("runs/quad: a run's own bounds take no numbers"));
}

}  // namespace
}  // namespace moesaic
