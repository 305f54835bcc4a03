#include "launch/study/study_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/base/json_depth.h"
#include "runtime/metrics/json_line.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

namespace {

std::optional<double> parsed(const std::string& text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size() && !text.empty();
    return whole && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::string csv_cell(const std::string& text) {
    if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char letter : text) {
        if (letter == '"') quoted += '"';
        quoted += letter;
    }
    return quoted + "\"";
}

}  // namespace

std::vector<std::string> StudyTable::axes() const {
    return {columns.begin(), std::ranges::find(columns, "seed")};
}

bool StudyTable::has(std::string_view column) const {
    return std::ranges::find(columns, column) != columns.end();
}

std::optional<double> number_in(const StudyRow& row, const std::string& column) {
    const auto found = row.find(column);
    return found == row.end() ? std::nullopt : parsed(found->second);
}

std::vector<StudyGroup> groups_of(const StudyTable& table, const std::vector<const StudyRow*>& rows) {
    const std::vector<std::string> axes = table.axes();
    std::vector<StudyGroup> groups;
    for (const StudyRow* row : rows) {
        StudyRow point;
        for (const std::string& axis : axes)
            if (const auto found = row->find(axis); found != row->end()) point.insert(*found);
        const auto group = std::ranges::find(groups, point, &StudyGroup::point);
        if (group != groups.end()) {
            group->rows.push_back(row);
        } else {
            groups.push_back({point, {row}});
        }
    }
    return groups;
}

StudyTable cell_table(const StudyTable& table, const std::vector<std::string>& columns) {
    StudyTable cells;
    cells.columns = table.axes();
    cells.columns.emplace_back("runs");
    for (const std::string& column : columns)
        cells.columns.insert(cells.columns.end(), {column, column + ".deviation"});
    std::vector<const StudyRow*> rows;
    for (const StudyRow& row : table.rows) rows.push_back(&row);
    for (const StudyGroup& group : groups_of(table, rows)) {
        StudyRow cell = group.point;
        std::size_t runs = 0;
        for (const std::string& column : columns) {
            std::vector<double> numbers;
            for (const StudyRow* row : group.rows)
                if (const auto number = number_in(*row, column)) numbers.push_back(*number);
            runs = std::max(runs, numbers.size());
            if (numbers.empty()) continue;
            cell[column] = fmt::format("{:.6g}", mean_of(numbers));
            cell[column + ".deviation"] = fmt::format("{:.3g}", deviation_of(numbers));
        }
        cell["runs"] = std::to_string(runs);
        cells.rows.push_back(std::move(cell));
    }
    return cells;
}

std::string csv_text(const StudyTable& table) {
    std::string text;
    for (std::size_t i = 0; i < table.columns.size(); ++i)
        text += (i > 0 ? "," : "") + csv_cell(table.columns[i]);
    text += '\n';
    for (const StudyRow& row : table.rows) {
        for (std::size_t i = 0; i < table.columns.size(); ++i) {
            const auto found = row.find(table.columns[i]);
            text += (i > 0 ? "," : "") + (found == row.end() ? "" : csv_cell(found->second));
        }
        text += '\n';
    }
    return text;
}

std::string jsonl_text(const StudyTable& table) {
    std::string text;
    for (const StudyRow& row : table.rows) {
        JsonLine line;
        for (const std::string& column : table.columns) {
            const auto found = row.find(column);
            if (found == row.end()) {
                line.field(column, std::optional<double>());
            } else if (const auto value = parsed(found->second)) {
                line.field(column, *value);
            } else {
                line.field(column, found->second);
            }
        }
        text += line.text() + "\n";
    }
    return text;
}

StudyTable read_study_table(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw UserError(fmt::format("{}: no such file; a study writes it", path));
    StudyTable table;
    for (std::string line; std::getline(file, line);) {
        if (json_depth(line) > kDeepestRecord) continue;
        const auto record = nlohmann::ordered_json::parse(line, nullptr, false);
        if (!record.is_object()) continue;
        StudyRow row;
        for (const auto& [column, value] : record.items()) {
            if (!table.has(column)) table.columns.push_back(column);
            if (value.is_string()) row[column] = value.get<std::string>();
            if (value.is_number()) row[column] = number_text(value.get<double>());
        }
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::string number_text(double value) {
    return fmt::format("{}", value);
}

}  // namespace moesaic
