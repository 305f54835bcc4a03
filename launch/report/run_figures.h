// The figures of a run as a table: what each needs, and the script that draws it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/report/bound_kinds.h"
#include "launch/report/gnuplot.h"
#include "launch/report/run_history.h"

namespace moesaic {

struct RunFigure {
    std::string_view name, section, title, caption;
    std::vector<std::string_view> needs;  ///< series, of which one is enough
    int height;                           ///< pixels
    std::string (*script)(const RunHistory&);
};

/// In the order of the page.
[[nodiscard]] std::span<const RunFigure> run_figures();
[[nodiscard]] bool is_drawable(const RunFigure& figure, const RunHistory& run);
[[nodiscard]] Drawing drawing_of(const RunFigure& figure, const RunHistory& run);

/// At most `most` points: of every stretch of steps its lowest and its highest, so that no spike is lost.
[[nodiscard]] Series thinned(const Series& series, std::size_t most);

}  // namespace moesaic
