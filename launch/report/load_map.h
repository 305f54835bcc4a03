// The heat map of the experts' load: a panel per layer, steps across, experts upwards.
#pragma once

#include <string>
#include <vector>

#include "launch/report/gnuplot.h"
#include "launch/report/run_history.h"

namespace moesaic {

/// At most `most` of the values, evenly spaced, the first and the last among them.
[[nodiscard]] std::vector<i64> evenly_chosen(const std::vector<i64>& values, std::size_t most);

/// Maps of layers are drawn in panels, two beside each other.
inline constexpr std::size_t kMostPanels = 12;
inline constexpr int kPanelColumns = 2;
[[nodiscard]] constexpr int panel_rows(std::size_t panels) {
    return (static_cast<int>(panels) + kPanelColumns - 1) / kPanelColumns;
}

/// Load over its mean on a grid [experts][columns] of evenly spaced steps: the mean over the snapshots of a
/// column's stretch, or the latest before it. Experts that are more than `most_experts` are averaged in
/// groups of neighbours.
struct LoadMap {
    double first_step = 0, last_step = 0;
    std::vector<std::vector<double>> load;
};
[[nodiscard]] LoadMap load_map(const std::vector<LoadSnapshot>& snapshots, std::size_t most_columns,
                               std::size_t most_experts);

[[nodiscard]] std::string load_map_script(const RunHistory& run);
[[nodiscard]] int load_map_height(const RunHistory& run);  ///< pixels

/// Colours and their bar for what is 1 on average: blue below, red from 2 on.
void set_relative_colours(PlotScript& plot);

}  // namespace moesaic
