// moesaic bound as other programs call it.
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

const Words kContract{"bound", "--samples",    "10000", "--experts",   "8",  "--top-k", "2",   "--lipschitz",
                      "1",     "--rademacher", "0.01",  "--natarajan", "16", "--delta", "0.05"};

Words plus(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST(BoundCommand, PrintsOneObjectWithTheNamesOfTheContract) {
    for (const Ranks& ranks : {kAlone, mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result = moesaic(plus(kContract, {"--json"}), ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        ASSERT_EQ(lines_of(result.out).size(), 1u) << result.out;
        const Json object = Json::parse(result.out);
        for (const char* name : {"published", "published_exact_binomial", "corrected_uniform",
                                 "corrected_softmax", "corrected_frozen"}) {
            ASSERT_TRUE(object.contains(name)) << name;
            EXPECT_TRUE(object[name]["value"].is_number());
            EXPECT_TRUE(object[name]["terms"].is_object());
            EXPECT_TRUE(object[name]["vacuous"].is_boolean());
            EXPECT_TRUE(object[name]["assumptions"].is_array());
            EXPECT_FALSE(object[name]["assumptions"].empty());
        }
        EXPECT_NEAR(object["published"]["value"].get<double>(), 0.2912212836, 1e-9);
        EXPECT_NEAR(object["published_exact_binomial"]["value"].get<double>(), 0.2721501117, 1e-9);
    }
}

TEST(BoundCommand, TakesAllOptionsOfTheContract) {
    const CommandResult result = moesaic(plus(kContract, {"--router-inputs", "16", "--norm", "1", "--radius",
                                                          "1", "--range", "1", "--k-eff", "1", "--json"}));
    ASSERT_EQ(result.code, 0) << result.text();
    const Json object = Json::parse(result.out);
    EXPECT_NEAR(object["corrected_uniform"]["value"].get<double>(), 0.508932755418, 1e-9);
    EXPECT_NEAR(object["corrected_softmax"]["value"].get<double>(), 0.729460040901, 1e-9);
    EXPECT_NEAR(object["corrected_frozen"]["value"].get<double>(), 0.0688072766483, 1e-9);
}

TEST(BoundCommand, TablesForPeopleAndPrograms) {
    const Words grid{"bound",     "--experts", "4,8,16",          "--top-k", "1,2",
                     "--samples", "1e3,1e4",   "--router-inputs", "16"};
    const CommandResult table = moesaic(grid);
    ASSERT_EQ(table.code, 0) << table.text();
    EXPECT_EQ(lines_of(table.out).size(), 1u + 12u + 1u) << table.out;
    EXPECT_EQ(occurrences(table.out, "corrected_softmax_all"), 1);
    const CommandResult json = moesaic(plus(grid, {"--json"}));
    const Words lines = lines_of(json.out);
    ASSERT_EQ(lines.size(), 12u);
    const Json last = Json::parse(lines.back());
    EXPECT_EQ(last["experts"], 16);
    EXPECT_EQ(last["top_k"], 2);
    EXPECT_EQ(last["samples"], 10000);
    EXPECT_TRUE(last["bounds"]["corrected_frozen"]["value"].is_number());
}

TEST(BoundCommand, SaysTermsAssumptionsAndWhatIsVacuous) {
    const CommandResult result = moesaic(plus(kContract, {"--gate", "softmax", "--range", "0.2"}));
    ASSERT_EQ(result.code, 0) << result.text();
    for (const char* text :
         {"vacuous", "expert 0.04 + routing 0.2512", "gate_covered              violated",
          "gate_covered              holds", "certificate               violated", "--list"}) {
        EXPECT_GE(occurrences(result.out, text), 1) << text << "\n" << result.out;
    }
    const CommandResult list = moesaic({"bound", "--list"});
    EXPECT_EQ(list.code, 0);
    EXPECT_EQ(occurrences(list.out, "source "), occurrences(list.out, "needs "));
    EXPECT_GE(occurrences(list.out, "source "), 25);
}

TEST(BoundCommand, MistakesAllAtOnce) {
    for (const Ranks& ranks : {kAlone, mpirun(2)}) {
        if (!can_run(ranks)) continue;
        expect_failure(
            moesaic({"bound", "--experts", "x", "--top-k", "1.5", "--sampels", "10", "--norm"}, ranks), 2,
            {"moesaic bound: --experts: 'x' is not a number; between 1 and 65536\n",
             "moesaic bound: --top-k: '1.5' is not a whole number; between 0 and 65536\n",
             "moesaic bound: --norm: has no number; ",
             "moesaic bound: --sampels: is no option; did you mean"});
    }
    expect_failure(moesaic({"bound"}), 2,
                   {"moesaic bound: --samples: the numbers are not enough for any bound; "});
    expect_failure(moesaic({"bound", "runs/none"}), 2, {"runs/none/metrics.jsonl: there is no such file; "});
    expect_failure(moesaic({"bound", "runs/none", "--samples", "10"}), 2, {"give the run alone, or"});
    expect_failure(moesaic({"bound", "--samples", "10", "--experts", "4", "--top-k", "5"}), 2,
                   {"5 is above experts 4"});
    expect_failure(moesaic({"bound", "--samples", "1e4", "--margin", "1", "--layer-spectral", "2,2,2",
                            "--layer-rows", "4"}),
                   2, {"--layer-rows: 1 numbers for the 3 layers of layer_spectral; one of each layer"});
    expect_failure(moesaic({"bound", "--samples", "1e4", "--experts", "8", "--top-k", "2", "--gate", "frozen",
                            "--k-eff", "1000"}),
                   2, {"--k-eff: 1000 is above top_k 2; "});
    expect_failure(moesaic({"bound", "--samples", "1e3,1e4", "--experts", "8", "--top-k", "2,4",
                            "--router-inputs", "8", "--rank-weights", "0.7,0.3"}),
                   2, {"--rank-weights: 2 weights with sum 1; one per active expert"});
}

}  // namespace
}  // namespace moesaic::e2e
