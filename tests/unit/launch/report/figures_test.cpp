// Figures and pages: what is drawn of what, and that gnuplot and a browser can read it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "launch/report/load_map.h"
#include "launch/report/page.h"
#include "launch/report/run_figures.h"
#include "launch/report/run_page.h"
#include "runtime/base/error.h"
#include "runtime/machine/programs.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

bool have_gnuplot() {
    return find_program("gnuplot", search_path()).has_value();
}

/// A run in which every figure of the table has something to draw.
RunHistory full_run() {
    RunHistory run;
    run.folder = "runs/a<b>";
    for (const char* name :
         {"step.loss", "step.step_ms", "step.exchange_ms", "step.tokens_per_s", "step.grad_norm", "step.lr",
          "eval.heldout_loss", "eval.heldout_error", "eval.heldout_by_source.it's `x`", "eval.gap",
          "eval.gap_low", "eval.gap_high", "eval.gaps.error.value", "eval.gaps.error.low",
          "eval.gaps.error.high", "bound.heldout", "bound.published"})
        run.series[name] = {{1, 10, 20}, {3, 2, 1}};
    run.series["eval.mutual_information.layer 0"] = {{1, 10}, {0.1, 0.2}};
    run.domains = {
        {0, {"a novel.txt", "it's `x`"}, {{0.5, 0.25, 0.25, 0}, {0.25, 0.25, 0.25, 0.25}}, 0.1, 0.02},
        {3, {"a novel.txt"}, {{1, 0, 0, 0}}, 0.5, 0.005}};
    for (const i64 layer : {0, 1, 2}) {
        run.loads[layer] = {{1, {4, 0, 2, 2}}, {10, {2, 2, 2, 2}}, {20, {1, 3, 2, 2}}};
        run.layers[layer]["max_over_mean"] = run.layers[layer]["router_entropy"] = {{1, 10, 20}, {2, 1, 1.5}};
    }
    return run;
}

TEST(RunFigures, EachIsDrawnWhereAnythingItNeedsIsRecorded) {
    const RunHistory full = full_run();
    for (const RunFigure& figure : run_figures()) {
        EXPECT_TRUE(is_drawable(figure, full)) << figure.name;
        EXPECT_FALSE(is_drawable(figure, RunHistory())) << figure.name;
    }
    RunHistory old = full_run();
    old.layers.clear();
    for (const RunFigure& figure : run_figures())
        EXPECT_EQ(is_drawable(figure, old),
                  figure.section != "Experts" || figure.name == "load" || figure.name == "domains")
            << figure.name;
}

TEST(RunFigures, BoundsWhoseAssumptionsAreViolatedAreDotted) {
    RunHistory run = full_run();
    run.series = {{"bound.corrected_frozen", {{1, 2}, {3, 2}}},
                  {"bound.corrected_uniform", {{1, 2}, {3, 2}}}};
    run.bounds = {{.name = "corrected_frozen", .terms = {}, .open_assumptions = {}, .violated = true},
                  {.name = "corrected_uniform", .terms = {}, .open_assumptions = {"x: unknown"}}};
    const auto figure = std::ranges::find(run_figures(), "gap_bounds", &RunFigure::name);
    ASSERT_NE(figure, run_figures().end());
    const std::string script = drawing_of(*figure, run).script;
    EXPECT_THAT(script, HasSubstr("corrected_frozen (violated)"));
    EXPECT_THAT(script, testing::ContainsRegex("dt 3[^\n]*frozen"));
    EXPECT_THAT(script, Not(testing::ContainsRegex("dt 3[^\n]*uniform")));
}

TEST(RunFigures, GnuplotDrawsEveryOneInEveryFormat) {
    if (!have_gnuplot()) GTEST_SKIP() << "no gnuplot here";
    const Gnuplot gnuplot;
    const RunHistory run = full_run();
    const std::pair<FigureFormat, std::string> beginnings[] = {{FigureFormat::page, "<svg"},
                                                               {FigureFormat::svg, "<?xml"},
                                                               {FigureFormat::png, "\x89PNG"},
                                                               {FigureFormat::pdf, "%PDF"}};
    for (const RunFigure& figure : run_figures()) {
        for (const auto& [format, beginning] : beginnings) {
            if (format != FigureFormat::page && figure.name != "load") continue;  // the others cost time
            const std::string file = gnuplot.draw(drawing_of(figure, run), format);
            EXPECT_EQ(file.substr(0, beginning.size()), beginning) << figure.name;
            if (format != FigureFormat::page) continue;
            EXPECT_THAT(file, HasSubstr("var(--figure-"));
            EXPECT_THAT(file, Not(HasSubstr("rgb(1,"))) << figure.name << ": a colour that no theme replaces";
            EXPECT_THAT(file, Not(testing::ContainsRegex("color=.white"))) << figure.name << ": nor this one";
            EXPECT_THAT(file, Not(HasSubstr("id=\"gnuplot_canvas")))
                << "two figures of a page would share it";
        }
    }
}

TEST(RunFigures, NamesOfTheUsersAreOnlyText) {
    if (!have_gnuplot()) GTEST_SKIP() << "no gnuplot here";
    const ScratchFolder folder;
    const std::string witness = folder / "witness";
    RunHistory run;
    run.series["eval.heldout_by_source.`touch " + witness + "` it's \\ @x"] = {{1, 2}, {1, 2}};
    for (const RunFigure& figure : run_figures()) {
        if (!is_drawable(figure, run)) continue;
        const std::string svg = Gnuplot().draw(drawing_of(figure, run), FigureFormat::page);
        EXPECT_THAT(svg, HasSubstr("it's \\ @x"));
    }
    EXPECT_FALSE(std::filesystem::exists(witness)) << "a name was run as a command";
}

TEST(RunFigures, WhatGnuplotRefusesIsAnErrorWithItsWords) {
    if (!have_gnuplot()) GTEST_SKIP() << "no gnuplot here";
    try {
        (void)Gnuplot().draw({.name = "wrong", .script = "plot nonsense\n"}, FigureFormat::page);
        FAIL() << "it was drawn";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("nonsense"));
    }
}

TEST(RunFigures, ThinningKeepsEverySpike) {
    Series series;
    for (int i = 0; i < 10000; ++i) {
        series.step.push_back(i);
        series.value.push_back(i == 777 ? 100 : i == 5000 ? -100 : i % 3);
    }
    const Series kept = thinned(series, 200);
    EXPECT_LE(kept.step.size(), 200u);
    EXPECT_THAT(kept.value, testing::Contains(100));
    EXPECT_THAT(kept.value, testing::Contains(-100));
    EXPECT_TRUE(std::is_sorted(kept.step.begin(), kept.step.end()));
    EXPECT_EQ(thinned(series, 10000).step, series.step);
}

TEST(LogAxis, HasNumbersWhateverItsLength) {
    const auto script = [](std::vector<double> values) {
        PlotScript plot;
        return plot.log_axis('y', std::move(values)).text();
    };
    EXPECT_THAT(script({0.3, 0.45, 0, -1, INFINITY}), HasSubstr("set ytics (0.3, 0.45)"))
        << "none of 1, 2, 5 lies within: its ends";
    EXPECT_THAT(script({0.13, 1.7}), HasSubstr("set ytics (0.2, 0.5, 1)"));
    EXPECT_THAT(script({1e-4, 1e4}), Not(HasSubstr("ytics"))) << "gnuplot's own: decades";
    EXPECT_THAT(script({1e-4, 1e4}), HasSubstr("set yrange"));
    EXPECT_THAT(script({0}), Not(HasSubstr("yrange"))) << "nothing to show";
}

TEST(RunFigures, KindsOfBoundsFollowTheTable) {
    EXPECT_EQ(bound_kind("published"), "trend");
    EXPECT_EQ(bound_kind("corrected_softmax"), "gap");
    EXPECT_EQ(bound_kind("heldout"), "risk");
    EXPECT_EQ(bound_kind("prequential_smoothed_bits"), "risk");
    EXPECT_EQ(bound_kind("unheard_of"), "gap");
    EXPECT_LT(bound_rank("heldout"), bound_rank("corrected_softmax"));
    EXPECT_LT(bound_rank("corrected_softmax"), bound_rank("published"));
    EXPECT_LT(bound_rank("published"), bound_rank("unheard_of"));
}

TEST(LoadMap, AveragesStretchesAndGroups) {
    const std::vector<LoadSnapshot> snapshots{
        {1, {4, 0, 0, 0}}, {10, {1, 1, 1, 1}}, {20, {0, 0, 0, 0}}, {30, {0, 2, 2, 0}}};
    const LoadMap whole = load_map(snapshots, 100, 100);
    ASSERT_EQ(whole.load.size(), 4u);
    EXPECT_THAT(whole.load[0], ElementsAre(4, 1, 0, 0));
    EXPECT_THAT(whole.load[1], ElementsAre(0, 1, 0, 2));
    const LoadMap halves = load_map(snapshots, 2, 2);
    ASSERT_EQ(halves.load.size(), 2u);
    EXPECT_THAT(halves.load[0], ElementsAre((2 + 1) / 2.0, (0 + 1) / 2.0));
    // Steps that are not evenly spaced: a stretch without a snapshot shows the latest before it.
    const LoadMap uneven = load_map({{0, {1, 3}}, {1, {2, 2}}, {100, {4, 0}}}, 3, 2);
    EXPECT_THAT(uneven.load[0], ElementsAre(0.75, 0.75, 2));
    EXPECT_TRUE(load_map({}, 3, 2).load.empty());
}

TEST(LoadMap, ChoosesLayersEvenly) {
    EXPECT_THAT(evenly_chosen({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 3), ElementsAre(0, 5, 10));
    EXPECT_THAT(evenly_chosen({4, 7}, 8), ElementsAre(4, 7));
}

TEST(RunPage, HoldsEverythingAndFetchesNothing) {
    if (!have_gnuplot()) GTEST_SKIP() << "no gnuplot here";
    RunHistory run = full_run();
    run.bounds = {{"published", 2, true, {{"expert", 1}, {"routing", 1}}, {}},
                  {"heldout", 0.5, false, {}, {"x: unknown"}}};
    run.alarms = {{7, "leak", "warn", "<script>alert(1)</script>"}};
    run.config = "key: <value>\n";
    const std::string html = run_page(run, Gnuplot());
    for (const RunFigure& figure : run_figures()) EXPECT_THAT(html, HasSubstr(std::string(figure.title)));
    EXPECT_LT(html.find("<td>heldout</td>"), html.find("<td>published</td>"))
        << "the certificate comes first";
    EXPECT_THAT(html, HasSubstr("2 (vacuous)"));
    EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)"));
    EXPECT_THAT(html, HasSubstr("key: &lt;value&gt;"));
    EXPECT_THAT(html, Not(HasSubstr("<script")));
    for (const char* fetched : {"src=", "@import", "url(", "href=\"http", "href='http"})
        EXPECT_THAT(html, Not(HasSubstr(fetched)));
    const std::string empty = run_page(RunHistory(), Gnuplot());
    EXPECT_THAT(empty, HasSubstr("nothing to draw"));
    EXPECT_THAT(empty, Not(HasSubstr("<svg")));
}

TEST(Page, ShowsNumbersForPeople) {
    EXPECT_EQ(shown(0.123456), "0.1235");
    EXPECT_EQ(shown(std::nan("")), "-");
    EXPECT_EQ(shown_count(3480000), "3.48 M");
    EXPECT_EQ(shown_count(999), "999");
}

}  // namespace
}  // namespace moesaic
