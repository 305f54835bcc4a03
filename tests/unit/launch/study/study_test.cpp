// Reading studies, their grids and tables; the simulations against theory; every shipped study.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <numbers>

#include "launch/study/claims.h"
#include "launch/study/run_pool.h"
#include "launch/study/simulations.h"
#include "launch/study/study_runs.h"
#include "runtime/base/error.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

StudyConfig read_study(const std::string& text, bool smoke, Diagnostics& mistakes) {
    const ScratchFolder folder;
    write_text(folder / "study.yaml", text);
    return load_study(folder / "study.yaml", smoke, mistakes);
}

constexpr const char* kStudy = R"(
name: s
base: base.yaml
seeds: 3
seed_keys: [task.data.split_seed]
set: {optimizer.betas: [0.9, 0.99], train.steps: 5}
grid:
  a: [1, 2]
  b: [x, y]
zip: {c: [1, 2], d: [10, 20]}
exclude: [{a: 1, b: x}, {c: 2, b: y}]
smoke: {seeds: 1, set: {train.steps: 1}, grid: {a: [7]}}
claims: [{name: n, kind: slope, statement: words, of: gap, against: a, where: {b: x}}]
)";

TEST(Study, ExpandsGridZipAndExclude) {
    Diagnostics mistakes;
    const StudyConfig study = read_study(kStudy, false, mistakes);
    EXPECT_EQ(mistakes.text(), "");
    EXPECT_THAT(study.overrides, ElementsAre("optimizer.betas=[0.9, 0.99]", "train.steps=5"));
    EXPECT_THAT(study.seed_keys, ElementsAre("task.data.split_seed"));
    const std::vector<StudyPoint> points = points_of(study);
    const auto point = [](const char* a, const char* b, const char* c, const char* d) {
        return StudyPoint{{"a", a}, {"b", b}, {"c", c}, {"d", d}};
    };
    EXPECT_THAT(points, ElementsAre(point("1", "y", "1", "10"), point("2", "x", "1", "10"),
                                    point("2", "x", "2", "20"), point("2", "y", "1", "10")));
    EXPECT_EQ(study.claims.at(0).options.at("where.b"), "x");
    const StudyConfig small = read_study(kStudy, true, mistakes);
    EXPECT_EQ(small.seeds, 1);
    EXPECT_THAT(points_of(small), ElementsAre(StudyPoint{{"a", "7"}}));
    EXPECT_EQ(small.overrides.back(), "train.steps=1");
    EXPECT_EQ(mistakes.text(), "") << "the large grid's exclusions go with it";
}

TEST(Study, ReportsEveryMistakeWithItsLine) {
    Diagnostics mistakes;
    (void)read_study(
        "name: a/b\nseads: 3\nseeds: 0\nseed_keys: a\ngrid:\n  a: 4\nzip: {b: [1, 2], c: [1]}\nclaims: "
        "[{kind: slope}]\n",
        true, mistakes);
    for (const char* text :
         {"study.yaml:2: seads: is no key of a study; did you mean 'seeds'?",
          "study.yaml:3: seeds: '0' is no count", "study.yaml:4: seed_keys: is not a list",
          "study.yaml:6: grid.a: has no list of values", "has 1 values, and its partner 2", "names no folder",
          "either base or simulation", "claims.name: is missing", "smoke: is missing"})
        EXPECT_THAT(mistakes.text(), HasSubstr(text));
    Diagnostics unreadable;
    (void)read_study("a: [", false, unreadable);
    (void)load_study("/absent.yaml", false, unreadable);
    EXPECT_THAT(unreadable.text(), HasSubstr("is not YAML"));
    EXPECT_THAT(unreadable.text(), HasSubstr("cannot be read"));
}

TEST(Study, ThatNobodyCouldRunIsRefused) {
    const auto mistakes_of = [](const std::string& text) {
        Diagnostics mistakes;
        (void)read_study("name: a\nbase: b.yaml\n" + text, false, mistakes);
        return mistakes.text();
    };
    std::string grid = "grid:\n";
    for (int i = 0; i < 40; ++i) grid += fmt::format("  k{}: [1, 2, 3, 4, 5]\n", i);
    EXPECT_THAT(mistakes_of(grid), HasSubstr("grid: makes 9.095e+27 runs; at most 10000"));
    EXPECT_THAT(mistakes_of("grid: {x: [1, 2]}\nseeds: 50001\n"), HasSubstr("makes 1e+05 runs; at most"));
    EXPECT_EQ(mistakes_of("grid: {x: [1, 2]}\nseeds: 5000\n"), "");
    EXPECT_THAT(mistakes_of("grid: {x: [1]}\nclaims:\n- &a {name: n, kind: k, statement: s, x: *a}\n"),
                HasSubstr("nests deeper than 64 levels; write the values out, without anchors"));
    EXPECT_THAT(mistakes_of("# " + std::string(1 << 20, 'x')),
                HasSubstr("is larger than 1 MiB; this is hardly a study"));
}

TEST(Study, ChecksEveryPointOfTheGrid) {
    StudyConfig study;
    study.file = "s.yaml";
    study.base = std::string(MOESAIC_SOURCE_DIR) + "/configs/tiny.yaml";
    study.axes = {{{"model.moe.top_k"}, {{"2"}, {"9"}}}, {{"model.moe.expertz"}, {{"4"}, {"8"}}}};
    Diagnostics mistakes;
    check_points(study, mistakes);
    EXPECT_THAT(mistakes.text(), HasSubstr("did you mean 'experts'?"));
    EXPECT_THAT(mistakes.text(), HasSubstr("at top_k=9"));
    study.seed_keys = {"task.data.split_sead"};
    check_points(study, mistakes);
    EXPECT_THAT(mistakes.text(), HasSubstr("did you mean 'split_seed'?"));
    study.seed_keys.clear();
    study.axes = {{{"ranks"}, {{"1"}, {"2"}}}};
    Diagnostics none;
    check_points(study, none);
    EXPECT_EQ(none.text(), "") << "ranks are an axis, and no key of the configuration";
}

TEST(Study, ShippedOnesAreSound) {
    int seen = 0;
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(MOESAIC_SOURCE_DIR);
    for (const auto& entry : std::filesystem::directory_iterator("configs/studies")) {
        if (entry.path().extension() != ".yaml") continue;
        ++seen;
        for (const bool smoke : {false, true}) {
            SCOPED_TRACE(entry.path().string());
            Diagnostics mistakes;
            const StudyConfig study = load_study(entry.path(), smoke, mistakes);
            ASSERT_EQ(mistakes.text(), "");
            check_points(study, mistakes);
            check_claims(study, mistakes);
            EXPECT_EQ(mistakes.text(), "");
            EXPECT_FALSE(study.takes.empty());
            EXPECT_FALSE(study.claims.empty());
            EXPECT_GE(study.seeds, smoke ? 1 : 5);
        }
    }
    std::filesystem::current_path(before);
    EXPECT_GE(seen, 5);
}

TEST(StudyTable, SurvivesItsFiles) {
    StudyTable table{{"a", "seed", "gap", "status"}, {}};
    table.rows = {{{"a", "4"}, {"seed", "1"}, {"gap", number_text(.1)}, {"status", "done"}},
                  {{"a", "say \"x\", y"}, {"seed", "2"}, {"status", "failed with 1"}}};
    EXPECT_EQ(csv_text(table), "a,seed,gap,status\n4,1,0.1,done\n\"say \"\"x\"\", y\",2,,failed with 1\n");
    const ScratchFolder folder;
    write_text(folder / "results.jsonl", jsonl_text(table) + "{\"a\":");
    const StudyTable again = read_study_table(folder / "results.jsonl");
    EXPECT_EQ(again.columns, table.columns);
    EXPECT_EQ(again.rows, table.rows);
    EXPECT_THAT(again.axes(), ElementsAre("a"));
    EXPECT_THROW((void)read_study_table(folder / "absent"), UserError);
    std::vector<const StudyRow*> rows{&table.rows[0], &table.rows[1]};
    EXPECT_EQ(groups_of(table, rows).size(), 2u);
}

TEST(StudyTable, CellsAreMeansOfWhatClaimsSpeakOf) {
    StudyTable table{{"T", "seed", "gap", "other", "status"}, {}};
    for (const char* gap : {"1", "3", ""})
        for (const char* experts : {"2", "4"})
            table.rows.push_back(
                {{"T", experts}, {"seed", "1"}, {"gap", gap}, {"other", "5"}, {"status", "done"}});
    StudyClaim claim;
    claim.options = {{"of", "gap"}, {"with", "T"}, {"above", "absent"}};
    const std::vector<std::string> columns = columns_of({claim, claim}, table);
    EXPECT_THAT(columns, ElementsAre("gap"));
    EXPECT_EQ(csv_text(cell_table(table, columns)), "T,runs,gap,gap.deviation\n2,2,2,1.41\n4,2,2,1.41\n");
}

TEST(Simulations, HashRouterFollowsItsExpectation) {
    EXPECT_NEAR(expected_hash_gap(1e4, 1e3), 0.124549651943, 1e-9);
    EXPECT_NEAR(expected_hash_gap(1e4, 1e4), 0.336841457928, 1e-9);
    EXPECT_NEAR(expected_hash_gap(1e5, 1e4), 0.12454817354, 1e-9);
    EXPECT_NEAR(expected_hash_gap(1e4, 1), 0.00797864613938 / 2, 1e-12);
    const Simulation* const hash = find_simulation("hash_router");
    ASSERT_NE(hash, nullptr);
    double sum = 0;
    for (u64 seed = 1; seed <= 20; ++seed) {
        StudyRow row;
        hash->draw({{"samples", "10000"}, {"experts", "1000"}}, seed, row);
        sum += *number_in(row, "gap");
        EXPECT_EQ(row.at("alarm.published"), "1");
        EXPECT_EQ(row.at("alarm.corrected"), "0");
        EXPECT_NEAR(*number_in(row, "bound.published"), 0.04556143602, 1e-9);
        EXPECT_NEAR(*number_in(row, "bound.corrected"), 0.32846650017, 1e-9);
    }
    EXPECT_NEAR(sum / 20, 0.124549651943, .01 * 0.1245);
}

TEST(Simulations, SoftmaxGateFitsNoiseBeyondACountOfMasks) {
    StudyRow row;
    find_simulation("softmax_gate")->draw({{"samples", "2000"}, {"width", "500"}, {"scale", "30"}}, 1, row);
    EXPECT_NEAR(*number_in(row, "bound.published"), 0.1227, 5e-5) << "the form of the dossier, bounds.md 1.3";
    EXPECT_EQ(row.at("alarm.published"), "1");
    EXPECT_EQ(row.at("alarm.corrected"), "0");
    // The direction of the mean has margins N(sqrt(d/m), 1) to first order: half of 2 Phi(1/2) - 1.
    EXPECT_NEAR(*number_in(row, "gap"), .1915, .02);
    EXPECT_EQ(find_simulation("absent"), nullptr);
}

TEST(Simulations, ExpertPartIsThatOfTheDossier) {
    // bounds.md 1.4: T = 16, d = 32, m = 2000, weights 1/k.
    const Simulation* const uniform = find_simulation("expert_part_uniform");
    ASSERT_NE(uniform, nullptr);
    for (const auto& [top_k, known] :
         std::map<int, double>{{1, .0877}, {2, .0629}, {4, .0446}, {8, .0314}, {16, .0215}}) {
        double sum = 0;
        StudyRow row;
        for (u64 seed = 1; seed <= 10; ++seed) {
            uniform->draw(
                {{"samples", "2000"}, {"experts", "16"}, {"width", "32"}, {"top_k", std::to_string(top_k)}},
                seed, row);
            sum += *number_in(row, "expert_part") / 10;
        }
        EXPECT_NEAR(sum, known, .05 * known) << top_k;
        EXPECT_NEAR(*number_in(row, "k_eff"), top_k, 1e-9);
        EXPECT_NEAR(*number_in(row, "law"), std::sqrt(16 / (top_k * 2000.)), 1e-12);
    }
    // One expert: the length of a sum of signed unit vectors, whose mean square is 1/m.
    double square = 0;
    for (u64 seed = 1; seed <= 200; ++seed) {
        StudyRow row;
        uniform->draw({{"samples", "50"}, {"experts", "1"}, {"width", "8"}, {"top_k", "1"}}, seed, row);
        square += std::pow(*number_in(row, "expert_part"), 2) / 200;
    }
    EXPECT_NEAR(square, 1. / 50, .1 / 50);
    StudyRow soft;
    find_simulation("expert_part_softmax")
        ->draw({{"samples", "2000"}, {"experts", "16"}, {"width", "32"}, {"scale", "2"}, {"top_k", "16"}}, 1,
               soft);
    EXPECT_GT(*number_in(soft, "k_eff"), 1);
    EXPECT_LT(*number_in(soft, "k_eff"), 6) << "most weight stays with few";
}

TEST(Simulations, ConstantExpertsKeepTheBoundAndComeNearTheirOwnError) {
    const Simulation* const constant = find_simulation("constant_experts");
    ASSERT_NE(constant, nullptr);
    StudyRow row;
    constant->draw({{"dimensions", "1"}, {"cells", "20"}}, 1, row);
    // Cells of side 1/2, scanned.
    const auto ackley = [](double x) {
        return 20 + std::numbers::e - 20 * std::exp(-0.2 * std::abs(x)) -
               std::exp(std::cos(2 * std::numbers::pi * x));
    };
    double worst = 0;
    for (int cell = 0; cell < 20; ++cell)
        for (int i = 0; i <= 1000; ++i) {
            const double centre = -5 + .5 * cell + .25;
            worst = std::max(worst, std::abs(ackley(centre - .25 + .0005 * i) - ackley(centre)));
        }
    EXPECT_NEAR(*number_in(row, "error"), worst, .02 * worst);
    EXPECT_LE(*number_in(row, "error"), worst);
    EXPECT_NEAR(*number_in(row, "bound"), (4 + 2 * std::numbers::pi * std::numbers::e) / 4, 1e-12);
    EXPECT_GT(*number_in(row, "bound"), worst);
    constant->draw({{"dimensions", "3"}, {"cells", "4"}}, 1, row);
    EXPECT_EQ(row.at("experts"), "64");
}

TEST(RunPool, RunsAllAndTellsHowTheyEnded) {
    const ScratchFolder folder;
    std::vector<PoolJob> jobs;
    for (int i = 0; i < 5; ++i)
        jobs.push_back({{"/bin/sh", "-c", "echo word" + std::to_string(i) + "; exit " + std::to_string(i)},
                        folder / ("log" + std::to_string(i))});
    jobs.push_back({{"/bin/sh", "-c", "kill -9 $$"}, folder / "log5"});
    std::vector<int> codes(jobs.size(), -1);
    EXPECT_TRUE(run_pool(jobs, 3, [&](std::size_t index, int code) { codes[index] = code; }));
    EXPECT_THAT(codes, ElementsAre(0, 1, 2, 3, 4, 137));
    EXPECT_EQ(read_text(folder / "log2"), "word2\n");
    EXPECT_THROW((void)run_pool({{{"/absent"}, folder / "log"}}, 1, [](std::size_t, int) {}), Error);
}

}  // namespace
}  // namespace moesaic
