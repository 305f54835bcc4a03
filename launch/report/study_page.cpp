#include "launch/report/study_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/report/page.h"
#include "launch/report/study_figures.h"
#include "launch/study/study_table.h"
#include "runtime/base/build_info.h"
#include "runtime/base/json_depth.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

namespace {

/// What claims.jsonl says of one claim.
struct JudgedClaim {
    std::string verdict, name, of, statement, finding;
};
std::vector<JudgedClaim> read_claims(const std::string& path) {
    std::vector<JudgedClaim> claims;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (json_depth(line) > kDeepestRecord) continue;
        const auto record = nlohmann::json::parse(line, nullptr, false);
        if (!record.is_object()) continue;
        const auto text = [&](const char* key) {
            return record.value(key, nlohmann::json("")).is_string() ? record.value(key, "") : "";
        };
        claims.push_back({text("verdict"), text("name"), text("of"), text("statement"), text("finding")});
    }
    return claims;
}

void add_claims(Page& page, const std::vector<JudgedClaim>& claims) {
    PageTable table{.head = {"verdict", "claim", "finding"}, .rows = {}, .numbers = {}};
    for (const JudgedClaim& claim : claims)
        table.rows.push_back(
            {claim.verdict, fmt::format("{}: {}", claim.name, claim.statement), claim.finding});
    page.section("Claims");
    if (table.rows.empty()) {
        page.paragraph("The study states none, or has not come to its end.");
        return;
    }
    page.paragraph("Inconclusive: the runs cannot tell, by their scatter or their number.");
    page.table(table);
}

/// Means over seeds, a row per point of the grid.
void add_cells(Page& page, const StudyTable& table, const std::vector<std::string>& claimed) {
    std::vector<std::string> columns{"steps",         "train_loss", "heldout_loss", "train_error",
                                     "heldout_error", "gap",        "gap_error",    "exact"};
    columns.insert(columns.end(), claimed.begin(), claimed.end());
    columns.insert(columns.end(), {"bound.published", "bound.corrected"});
    std::vector<std::string> measured;
    for (const std::string& column : columns)
        if (table.has(column) && !std::ranges::count(measured, column)) measured.push_back(column);
    PageTable shown_table{.head = table.axes(), .rows = {}, .numbers = {}};
    shown_table.head.emplace_back("runs");
    shown_table.head.insert(shown_table.head.end(), measured.begin(), measured.end());
    shown_table.numbers.assign(shown_table.head.size(), true);
    std::vector<const StudyRow*> rows;
    for (const StudyRow& row : table.rows) rows.push_back(&row);
    for (const StudyGroup& group : groups_of(table, rows)) {
        std::vector<std::string> cells;
        for (const std::string& axis : table.axes()) {
            const auto found = group.point.find(axis);
            cells.push_back(found == group.point.end() ? "" : found->second);
        }
        cells.push_back(std::to_string(group.rows.size()));
        for (const std::string& column : measured) {
            std::vector<double> values;
            for (const StudyRow* row : group.rows)
                if (const auto value = number_in(*row, column)) values.push_back(*value);
            cells.push_back(values.empty() ? "-" : shown(mean_of(values)));
        }
        shown_table.rows.push_back(std::move(cells));
    }
    page.section("Means over seeds");
    page.table(shown_table);
}

/// What predictions.jsonl foretells, where a claim of kind predictor wrote it.
void add_predictions(Page& page, const std::string& path) {
    PageTable table{
        .head = {"claim", "experts", "top_k", "samples", "gap", "low", "high", "gap_by_index", "index"},
        .rows = {},
        .numbers = {false, true, true, true, true, true, true, true, true}};
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (json_depth(line) > kDeepestRecord) continue;
        const auto record = nlohmann::json::parse(line, nullptr, false);
        if (!record.is_object()) continue;
        std::vector<std::string> cells;
        for (const std::string& column : table.head) {
            const auto value = record.value(column, nlohmann::json());
            cells.push_back(value.is_string()   ? value.get<std::string>()
                            : value.is_number() ? shown(value.get<double>())
                                                : "-");
        }
        table.rows.push_back(std::move(cells));
    }
    if (table.rows.empty()) return;
    page.section("Foretold gaps of the next sizes");
    page.paragraph(
        "By the law in samples, experts and top_k with its interval, and by a constant times the published "
        "index alone. All "
        "lie beyond what was measured, where the interval's level is no promise. `moesaic study STUDY "
        "--predict "
        "experts=T,top_k=k,samples=N` foretells others.");
    page.table(table);
}

}  // namespace

bool is_study_folder(const std::string& folder) {
    return std::filesystem::exists(folder + "/results.jsonl");
}

std::vector<std::string> claimed_columns(const std::string& folder) {
    std::vector<std::string> columns;
    for (const JudgedClaim& claim : read_claims(folder + "/claims.jsonl"))
        if (!claim.of.empty() && !std::ranges::count(columns, claim.of)) columns.push_back(claim.of);
    return columns;
}

std::string study_page(const std::string& folder, const Gnuplot& gnuplot) {
    const StudyTable table = read_study_table(folder + "/results.jsonl");
    const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
    const std::string name =
        path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
    Page page("Study " + name, fmt::format("Moesaic {} ({})  {}", kVersion, kCommit, folder));
    const auto failed = std::ranges::count_if(table.rows, [](const StudyRow& row) {
        const auto status = row.find("status");
        return status != row.end() && status->second != "done";
    });
    if (failed > 0) page.notes({fmt::format("{} of {} runs did not end well", failed, table.rows.size())});
    const std::vector<JudgedClaim> claims = read_claims(folder + "/claims.jsonl");
    const std::vector<std::string> claimed = claimed_columns(folder);
    add_claims(page, claims);
    add_predictions(page, folder + "/predictions.jsonl");
    const std::vector<StudyFigure> figures = study_figures(table, claimed);
    if (!figures.empty()) page.section("Figures");
    for (const StudyFigure& figure : figures)
        page.figure(figure.title, gnuplot.draw(figure.drawing, FigureFormat::page), figure.caption);
    add_cells(page, table, claimed);
    page.folded("Every run (results.csv)", csv_text(table));
    return page.html();
}

}  // namespace moesaic
