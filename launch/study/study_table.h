// The results of a study: one row a run, columns by name.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

using StudyRow = std::map<std::string, std::string>;  ///< column to value; absent: nothing was measured

struct StudyTable {
    std::vector<std::string> columns;  ///< axes of the grid, then "seed", then what was measured
    std::vector<StudyRow> rows;

    [[nodiscard]] std::vector<std::string> axes() const;  ///< the columns before "seed"
    [[nodiscard]] bool has(std::string_view column) const;
};

/// The value as a number; empty where it is absent or no finite number.
[[nodiscard]] std::optional<double> number_in(const StudyRow& row, const std::string& column);

/// Rows of one point of the grid, which differ in their seed.
struct StudyGroup {
    StudyRow point;  ///< the axes alone
    std::vector<const StudyRow*> rows;
};
/// In the order of the rows.
[[nodiscard]] std::vector<StudyGroup> groups_of(const StudyTable& table,
                                                const std::vector<const StudyRow*>& rows);

/// RFC 4180.
[[nodiscard]] std::string csv_text(const StudyTable& table);
/// A row for each point of the grid: its axes, how many of its runs have numbers, and mean and standard
/// deviation over them of each of `columns`, as X and X.deviation.
[[nodiscard]] StudyTable cell_table(const StudyTable& table, const std::vector<std::string>& columns);
/// One object a line; what reads as a finite number is one.
[[nodiscard]] std::string jsonl_text(const StudyTable& table);
/// The table that jsonl_text wrote; lines that are no objects are left out. Throws UserError where there is
/// none.
[[nodiscard]] StudyTable read_study_table(const std::string& path);

/// The shortest text that reads back as the same number.
[[nodiscard]] std::string number_text(double value);

}  // namespace moesaic
