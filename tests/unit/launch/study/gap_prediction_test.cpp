// What is foretold of configurations that nobody ran.
#include "launch/study/gap_prediction.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

using testing::HasSubstr;
using testing::Not;

const StudyClaim kClaim{"study.yaml:1",
                        "law",
                        "predictor",
                        "words",
                        {{"of", "gap"}, {"samples", "N"}, {"experts", "T"}, {"top_k", "k"}}};

double gap_at(int experts, int k, int samples, int seed) {
    const double x = std::exp(.6 - std::log(samples / 1000.) + 1.2 * std::log(experts / 8.));
    return .5 * x / (1 + x) * (1 + .05 * std::sin(experts * k + samples + seed));
}

/// Five seeds of every T, k and N but for T = 8, k = 2; and the cells that they make, computed here.
struct LeftOut {
    StudyTable table{{"T", "k", "N", "seed", "gap"}, {}};
    std::vector<GapCell> cells;
};
LeftOut left_out() {
    LeftOut made;
    for (const int experts : {2, 4, 8, 16, 32})
        for (const int k : {1, 2, 4})
            for (const int samples : {250, 1000, 4000}) {
                if (k > experts || (experts == 8 && k == 2)) continue;
                double sum = 0, squares = 0;
                for (int seed = 1; seed <= 5; ++seed) {
                    const double gap = gap_at(experts, k, samples, seed);
                    sum += gap;
                    squares += gap * gap;
                    made.table.rows.push_back({{"T", std::to_string(experts)},
                                               {"k", std::to_string(k)},
                                               {"N", std::to_string(samples)},
                                               {"seed", std::to_string(seed)},
                                               {"gap", number_text(gap)}});
                }
                const double variance = (squares - sum * sum / 5) / 4;
                made.cells.push_back(
                    {double(samples), double(experts), double(k), sum / 5, std::sqrt(variance / 5)});
            }
    return made;
}

StudyConfig study_of(std::vector<StudyClaim> claims) {
    StudyConfig study;
    study.name = "grid";
    study.claims = std::move(claims);
    return study;
}

TEST(GapPrediction, IsTheLawsAtAPlaceThatWasLeftOut) {
    const LeftOut made = left_out();
    const std::string text =
        prediction_text(study_of({kClaim}), made.table, {"experts=8,top_k=2,samples=1000"});
    const auto told = [&](const char* law) {
        const GapPrediction expected = predict_gap(gap_law(law), made.cells, {1000, 8, 2, 0, 0}, .1);
        return fmt::format(" {:.3g} [{:.3g}, {:.3g}] ", expected.gap, expected.low, expected.high);
    };
    EXPECT_THAT(text, HasSubstr(told("saturating_NTk")));
    EXPECT_THAT(text, HasSubstr(told("published")));
    EXPECT_THAT(text, HasSubstr(fmt::format("{:.4g}", std::sqrt(2 * (1 + std::log(4.)) / 1000))));
    EXPECT_THAT(text, HasSubstr("39 cells of 13 (experts, top_k) pairs; claim law: reproduced"));
    EXPECT_THAT(text, HasSubstr("80 %"));
    EXPECT_THAT(text, Not(HasSubstr("beyond what was measured")));
    EXPECT_THAT(prediction_text(study_of({kClaim}), made.table, {"experts=64,top_k=2,samples=1000"}),
                HasSubstr("beyond what was measured"));
    EXPECT_FALSE(foretell(kClaim, made.cells, {1000, 2, 4, 0, 0}).law.in_hull)
        << "each within its range, together nowhere near";
}

TEST(GapPrediction, RefusesWithARemedy) {
    const LeftOut made = left_out();
    const auto refusal = [&](const StudyConfig& study, const StudyTable& table,
                             const char* place) -> std::string {
        try {
            return "said: " + prediction_text(study, table, {place});
        } catch (const UserError& error) {
            return error.what();
        }
    };
    const char* const place = "experts=8,top_k=2,samples=1000";
    EXPECT_THAT(refusal(study_of({}), made.table, place), HasSubstr("no claim of kind predictor"));
    StudyTable few = made.table;
    few.rows.resize(3 * 5 * 3);  // k = 1 and 2 of T = 2, k = 1 of T = 4
    EXPECT_THAT(
        refusal(study_of({kClaim}), few, place),
        testing::AllOf(HasSubstr("9 cells of 3 (experts, top_k) pairs"), HasSubstr("widen its grid")));
    const auto mistake = [&](const char* text) { return refusal(study_of({kClaim}), made.table, text); };
    EXPECT_THAT(
        mistake("experts=8,topk=2"),
        testing::AllOf(HasSubstr("'topk' is none of experts, top_k, samples"), HasSubstr("top_k is missing"),
                       HasSubstr("samples is missing"), HasSubstr("e.g. --predict")));
    EXPECT_THAT(
        mistake("experts=8,top_k=0,samples=nan"),
        testing::AllOf(HasSubstr("top_k is no number of 1 or more"), HasSubstr("samples is no number")));
    EXPECT_THAT(mistake("experts=2,top_k=8,samples=1000"), HasSubstr("8 of 2 experts cannot be active"));
    StudyTable zero = few;
    for (StudyRow& row : zero.rows) row["N"] = "0";
    EXPECT_THAT(refusal(study_of({kClaim}), zero, place), HasSubstr("0 cells")) << "no logarithm";
    // Eight pairs are enough for a law, and too few for a promise.
    StudyTable pairs = made.table;
    std::erase_if(pairs.rows, [](const StudyRow& row) { return row.at("k") == "4"; });
    EXPECT_THAT(prediction_text(study_of({kClaim}), pairs, {place}), HasSubstr("if those were 12 or more"));
}

TEST(GapPrediction, NextPlacesLieBeyondTheLargest) {
    const std::vector<GapCell> cells = left_out().cells;
    const std::vector<GapCell> places = next_places(cells);
    ASSERT_EQ(places.size(), 6u);
    for (const GapCell& place : places) {
        EXPECT_TRUE(place.experts == 64 || place.samples == 8000);
        EXPECT_TRUE(place.top_k == 1 || place.top_k == 4);
        EXPECT_FALSE(predict_gap(gap_law("saturating_NTk"), cells, place, .1).in_hull);
    }
}

}  // namespace
}  // namespace moesaic
