// What is drawn of a study's table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "launch/report/study_figures.h"
#include "launch/report/study_page.h"
#include "runtime/machine/programs.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

/// T and its partner M vary together, k on its own; the gap grows with T.
StudyTable example() {
    StudyTable table{{"moe.experts", "M", "moe.top_k", "seed", "gap", "heldout_loss", "bound.published"}, {}};
    for (const int experts : {2, 4, 8})
        for (const int k : {1, 2})
            for (const int seed : {1, 2})
                table.rows.push_back({{"moe.experts", std::to_string(experts)},
                                      {"M", std::to_string(experts / 2)},
                                      {"moe.top_k", std::to_string(k)},
                                      {"seed", std::to_string(seed)},
                                      {"gap", number_text(.01 * experts * (1 + .1 * seed))},
                                      {"heldout_loss", number_text(experts == 8 ? 3 - k : k)},
                                      {"bound.published", number_text(.1 * experts)}});
    return table;
}

TEST(StudyFigures, DrawWhatTheTableHas) {
    std::vector<std::string> names;
    for (const StudyFigure& figure : study_figures(example())) names.push_back(figure.drawing.name);
    EXPECT_THAT(names, testing::IsSupersetOf({"gap_against_moe_experts", "gap_against_moe_top_k",
                                              "heldout_loss_against_moe_experts", "bounds_against_gap",
                                              "best_k_against_moe_experts"}));
    const StudyFigure first = study_figures(example()).front();
    EXPECT_THAT(first.drawing.script, HasSubstr("top_k=1 slope 1.00"))
        << "M goes along with T and makes no curve";
    EXPECT_THAT(names, testing::Not(testing::Contains("gap_against_M"))) << "nor a figure like the first";
    EXPECT_THAT(first.caption, HasSubstr("M change with it"));
    EXPECT_THAT(first.drawing.script, HasSubstr("xtics (2, 4, 8)")) << "a number at each value";
    StudyTable constant = example();
    for (StudyRow& row : constant.rows) row["moe.experts"] = row["M"] = row["moe.top_k"] = "1";
    EXPECT_TRUE(study_figures(constant).empty());
    EXPECT_TRUE(study_figures(StudyTable()).empty());
}

TEST(StudyFigures, ShowBoundsOfTheGapBesideItAndNoLimitsOfTheLoss) {
    StudyTable table = example();
    std::erase_if(table.rows, [](const StudyRow& row) { return row.at("moe.top_k") == "2"; });
    table.columns.insert(table.columns.end(), {"gap_error", "bound.heldout"});
    for (StudyRow& row : table.rows) row["gap_error"] = row["bound.heldout"] = row.at("gap");
    std::map<std::string, std::string> scripts;
    for (const StudyFigure& figure : study_figures(table))
        scripts[figure.drawing.name] = figure.drawing.script;
    EXPECT_THAT(scripts["gap_error_against_moe_experts"], HasSubstr("bound.published"));
    EXPECT_THAT(scripts["gap_against_moe_experts"], testing::Not(HasSubstr("bound.published")))
        << "bounds speak of losses in [0, 1]";
    for (const auto& [name, script] : scripts)
        EXPECT_THAT(script, testing::Not(HasSubstr("heldout'"))) << name;
}

TEST(StudyFigures, TakeTheNumberOfExamplesForTheAxesThatMakeIt) {
    StudyTable table = example();
    table.columns.emplace_back("training_samples");
    for (StudyRow& row : table.rows) row["training_samples"] = number_text(100 * std::stoi(row.at("M")));
    const StudyFigure first = study_figures(table).front();
    EXPECT_EQ(first.drawing.name, "gap_against_training_samples");
    EXPECT_THAT(first.caption, HasSubstr("moe.experts, M change with it"));
}

TEST(StudyFigures, ShowTheMeasureThatClaimsUse) {
    StudyTable table = example();
    table.columns.insert(table.columns.end(), {"gap_error", "mse"});
    for (StudyRow& row : table.rows) {
        row["gap_error"] = row.at("gap");
        row["mse"] = row.at("heldout_loss");
    }
    std::map<std::string, std::string> scripts;
    for (const StudyFigure& figure : study_figures(table, {"gap_error", "mse"}))
        scripts[figure.drawing.name] = figure.drawing.script;
    EXPECT_TRUE(scripts.contains("gap_against_moe_experts"));
    EXPECT_TRUE(scripts.contains("mse_against_moe_experts")) << "which is drawn because a claim is about it";
    EXPECT_THAT(scripts["gap_error_against_moe_experts"], HasSubstr("slope 1.00")) << "fitted as the gap is";
    EXPECT_THAT(scripts["bounds_against_gap"], HasSubstr("measured gap_error")) << "bounds speak of errors";
    const ScratchFolder folder;
    write_text(folder / "claims.jsonl",
               "{\"name\":\"a\",\"of\":\"mse\"}\n{\"name\":\"b\",\"of\":\"mse\"}\n{\"na");
    EXPECT_EQ(claimed_columns(folder.path()), std::vector<std::string>{"mse"});
}

TEST(StudyFigures, GnuplotDrawsThem) {
    if (!find_program("gnuplot", search_path())) GTEST_SKIP() << "no gnuplot here";
    const ScratchFolder folder;
    EXPECT_FALSE(is_study_folder(folder.path()));
    write_text(folder / "results.jsonl", jsonl_text(example()));
    write_text(
        folder / "claims.jsonl",
        "{\"name\":\"n\",\"statement\":\"<s>\",\"verdict\":\"inconclusive\",\"finding\":\"f\"}\n{\"na");
    ASSERT_TRUE(is_study_folder(folder.path()));
    const std::string html = study_page(folder.path(), Gnuplot());
    for (const StudyFigure& figure : study_figures(example())) EXPECT_THAT(html, HasSubstr(figure.title));
    EXPECT_THAT(html, HasSubstr("n: &lt;s&gt;"));
    EXPECT_THAT(html, testing::Not(HasSubstr("Foretold")));
    write_text(folder / "predictions.jsonl",
               "{\"claim\":\"law\",\"experts\":64,\"gap\":0.4375,\"high\":\"inf\",\"low\":[]}\n[1\n{\"gap");
    const std::string foretold = study_page(folder.path(), Gnuplot());
    for (const char* text : {"Foretold gaps", ">law<", ">64<", ">0.4375<", ">inf<"})
        EXPECT_THAT(foretold, HasSubstr(text));
}

}  // namespace
}  // namespace moesaic
