// The figures of a run as a table: what each needs, and the script that draws it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

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

/// What a bound limits: "gap", "risk" (the loss itself) or "trend"; of a name that the table of bounds lacks,
/// as its longest beginning that the table has, else "gap".
[[nodiscard]] std::string_view bound_kind(std::string_view name);
/// The position of a bound in that table, where what certifies most comes first.
[[nodiscard]] std::size_t bound_rank(std::string_view name);

}  // namespace moesaic
