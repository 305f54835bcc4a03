// The figures of a study: what was measured against every axis of the grid, bounds against gaps, the best k.
#pragma once

#include <string>
#include <vector>

#include "launch/report/gnuplot.h"
#include "launch/study/study_table.h"

namespace moesaic {

struct StudyFigure {
    std::string title, caption;
    Drawing drawing;
};

/// All that the table has something for: gaps, held-out losses and errors, and `claimed`, the columns that
/// the study's claims speak of.
[[nodiscard]] std::vector<StudyFigure> study_figures(const StudyTable& table,
                                                     const std::vector<std::string>& claimed = {});

/// Axes that take at least two numbers.
[[nodiscard]] std::vector<std::string> numeric_axes(const StudyTable& table);

}  // namespace moesaic
