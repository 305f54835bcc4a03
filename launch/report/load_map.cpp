#include "launch/report/load_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moesaic {

namespace {

constexpr std::size_t kMostColumns = 120, kMostExperts = 64;

std::vector<i64> shown_layers(const RunHistory& run) {
    std::vector<i64> layers;
    for (const auto& [layer, loads] : run.loads) layers.push_back(layer);
    return evenly_chosen(layers, kMostPanels);
}

/// Load over the mean, experts grouped; a step without a token is 0 everywhere.
std::vector<double> relative_load(const LoadSnapshot& snapshot, std::size_t groups) {
    const std::size_t experts = snapshot.load.size();
    const double mean =
        std::accumulate(snapshot.load.begin(), snapshot.load.end(), 0.0) / static_cast<double>(experts);
    std::vector<double> relative(groups, 0.0);
    for (std::size_t group = 0; group < groups; ++group) {
        const std::size_t begin = group * experts / groups, end = (group + 1) * experts / groups;
        for (std::size_t i = begin; i < end; ++i) relative[group] += snapshot.load[i];
        relative[group] /= mean > 0 ? mean * static_cast<double>(end - begin) : 1;
    }
    return relative;
}

double column_width(const LoadMap& map) {
    const std::size_t columns = map.load.empty() ? 1 : map.load.front().size();
    return (map.last_step - map.first_step) / static_cast<double>(std::max<std::size_t>(1, columns - 1));
}

void add_panel(PlotScript& plot, const std::vector<LoadSnapshot>& snapshots) {
    const LoadMap map = load_map(snapshots, kMostColumns, kMostExperts);
    const auto experts = static_cast<double>(snapshots.front().load.size());
    const std::size_t rows = map.load.size(), columns = map.load.front().size();
    const double width = column_width(map);
    const double height = experts / static_cast<double>(rows), half = width > 0 ? width / 2 : 0.5;
    std::vector<double> step, expert, load;
    for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t column = 0; column < columns; ++column) {
            step.push_back(map.first_step + static_cast<double>(column) * width);
            expert.push_back((static_cast<double>(row) + 0.5) * height - 0.5);
            load.push_back(map.load[row][column]);
        }
    }
    plot.set(fmt::format("xrange [{}:{}]", map.first_step - half, map.last_step + half));
    plot.set(fmt::format("yrange [-0.5:{}]", experts - 0.5));
    plot.set(fmt::format("ytics 0,{} scale 0 textcolor rgb muted", std::max(1.0, std::ceil(experts / 4))));
    const std::string block = plot.data({step, expert, load});
    // gnuplot makes an image of at least two by two points.
    plot.curve(columns > 1 && rows > 1
                   ? block + " using 1:2:3 with image"
                   : fmt::format("{} using 1:2:({}):({}):3 with boxxyerror fs solid noborder lc palette",
                                 block, half, height / 2),
               "");
    plot.end_plot();
}

}  // namespace

std::vector<i64> evenly_chosen(const std::vector<i64>& values, std::size_t most) {
    if (values.size() <= most) return values;
    std::vector<i64> chosen;
    for (std::size_t i = 0; i < most; ++i) chosen.push_back(values[i * (values.size() - 1) / (most - 1)]);
    return chosen;
}

void set_relative_colours(PlotScript& plot) {
    plot.set("palette defined (0 '#2a78d6', 1 '#c9c8c2', 2 '#c92a2a')").set("cbrange [0:2]");
    plot.set("cbtics ('0' 0, '1' 1, '2+' 2) scale 0 textcolor rgb muted");
    plot.set("colorbox noborder user origin 0.93,0.25 size 0.015,0.5");
}

LoadMap load_map(const std::vector<LoadSnapshot>& snapshots, std::size_t most_columns,
                 std::size_t most_experts) {
    LoadMap map;
    if (snapshots.empty()) return map;
    map.first_step = static_cast<double>(snapshots.front().step);
    map.last_step = static_cast<double>(snapshots.back().step);
    const std::size_t columns = std::min(most_columns, snapshots.size());
    const std::size_t groups = std::min(most_experts, snapshots.front().load.size());
    map.load.assign(groups, std::vector<double>(columns, 0.0));
    const double width = column_width(map);
    std::vector<double> latest = relative_load(snapshots.front(), groups);
    std::size_t next = 0;
    for (std::size_t column = 0; column < columns; ++column) {
        const double end = map.first_step + (static_cast<double>(column) + 0.5) * width;
        std::vector<double> sum(groups, 0.0);
        double count = 0;
        for (; next < snapshots.size() &&
               (static_cast<double>(snapshots[next].step) <= end || column + 1 == columns);
             ++next) {
            const std::vector<double> load = relative_load(snapshots[next], groups);
            for (std::size_t i = 0; i < groups; ++i) sum[i] += load[i];
            ++count;
        }
        if (count > 0)
            for (std::size_t i = 0; i < groups; ++i) latest[i] = sum[i] / count;
        for (std::size_t i = 0; i < groups; ++i) map.load[i][column] = latest[i];
    }
    return map;
}

std::string load_map_script(const RunHistory& run) {
    const std::vector<i64> layers = shown_layers(run);
    const double height = load_map_height(run);
    PlotScript plot;
    plot.set(fmt::format("multiplot layout {},{} margins 0.06,0.90,{:.3f},{:.3f} spacing 0.08,{:.3f}",
                         panel_rows(layers.size()), kPanelColumns, 56 / height, 1 - 26 / height,
                         62 / height));
    set_relative_colours(plot);
    plot.set("grid noytics").set("border 0").set("xtics scale 0 textcolor rgb muted");
    plot.set("format x '%.0f'");
    for (std::size_t panel = 0; panel < layers.size(); ++panel) {
        plot.set(panel + kPanelColumns >= layers.size() ? "xlabel 'step' textcolor rgb muted" : "xlabel ''");
        plot.set(panel % kPanelColumns == 0 ? "ylabel 'expert' offset 2 textcolor rgb muted" : "ylabel ''");
        plot.set(fmt::format("title {} textcolor rgb ink offset 0,-0.6",
                             gnuplot_text(fmt::format("layer {}", layers[panel]))));
        add_panel(plot, run.loads.at(layers[panel]));
    }
    return plot.text() + "unset multiplot\n";
}

int load_map_height(const RunHistory& run) {
    return 70 + 175 * panel_rows(shown_layers(run).size());
}

}  // namespace moesaic
