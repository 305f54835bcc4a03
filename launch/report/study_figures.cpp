#include "launch/report/study_figures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <set>

#include "runtime/metrics/statistics/fits.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

namespace {

constexpr std::size_t kMostCurves = 8;  // that a reader can tell apart

std::vector<const StudyRow*> all_rows(const StudyTable& table) {
    std::vector<const StudyRow*> rows;
    for (const StudyRow& row : table.rows) rows.push_back(&row);
    return rows;
}

std::vector<double> column_of(const StudyGroup& group, const std::string& column) {
    std::vector<double> values;
    for (const StudyRow* row : group.rows)
        if (const auto value = number_in(*row, column)) values.push_back(*value);
    return values;
}

std::string short_name(const std::string& key) {
    return key.substr(key.rfind('.') + 1);
}

/// A key as a name of gnuplot's and of the page's elements.
std::string element_name(std::string key) {
    std::ranges::replace_if(
        key, [](unsigned char letter) { return !std::isalnum(letter); }, '_');
    return key;
}

/// Whether `key` takes several values at one value of the axis; what goes along with it does not.
bool splits(const StudyTable& table, const std::string& axis, const std::string& key) {
    const auto text = [](const StudyRow& row, const std::string& column) {
        return row.contains(column) ? row.at(column) : "";
    };
    std::map<std::string, std::string> value_at;
    return std::ranges::any_of(table.rows, [&](const StudyRow& row) {
        return value_at.try_emplace(text(row, axis), text(row, key)).first->second != text(row, key);
    });
}

/// "experts=4 top_k=2": where a group lies on all axes that split one.
std::string others_text(const StudyTable& table, const StudyRow& point, const std::string& axis) {
    std::vector<std::string> parts;
    for (const auto& [key, value] : point)
        if (key != axis && splits(table, axis, key)) parts.push_back(short_name(key) + "=" + value);
    return fmt::format("{}", fmt::join(parts, " "));
}

/// A line of means with the scatter of seeds, by the values of the other axes.
struct Curve {
    std::string name;
    std::vector<double> x, mean, deviation;
    std::vector<Cell> cells;
};

std::vector<Curve> curves_of(const StudyTable& table, const std::string& axis, const std::string& column) {
    std::map<std::string, std::map<double, std::vector<double>>> values;
    for (const StudyGroup& group : groups_of(table, all_rows(table))) {
        const auto x = number_in(group.point, axis);
        const std::vector<double> y = column_of(group, column);
        if (x && !y.empty()) values[others_text(table, group.point, axis)][*x] = y;
    }
    std::vector<Curve> curves;
    for (const auto& [name, points] : values) {
        Curve curve{name, {}, {}, {}, {}};
        for (const auto& [x, y] : points) {
            curve.x.push_back(x);
            curve.mean.push_back(mean_of(y));
            curve.deviation.push_back(deviation_of(y));
            curve.cells.push_back({{x}, y});
        }
        curves.push_back(std::move(curve));
    }
    if (curves.size() <= kMostCurves) return curves;
    std::vector<Curve> chosen;
    for (std::size_t i = 0; i < kMostCurves; ++i)
        chosen.push_back(curves[i * (curves.size() - 1) / (kMostCurves - 1)]);
    return chosen;
}

/// Of the loss, or of another measure: "gap_error".
bool is_gap(const std::string& column) {
    return column.starts_with("gap");
}

bool all_positive(const std::vector<Curve>& curves) {
    return std::ranges::all_of(curves, [](const Curve& curve) {
        return std::ranges::all_of(curve.mean, [](double value) { return value > 0; });
    });
}

/// With the law that is fitted to it, where one is asked for and there is one.
void add_curve(PlotScript& plot, const Curve& curve, std::size_t index, bool fitted) {
    const std::string colour = fmt::format("s{}", index % kMostCurves + 1);
    const std::string block = plot.data({curve.x, curve.mean, curve.deviation});
    plot.curve(fmt::format("{} using 1:2:3 with yerrorbars pt 7 ps 0.6 lw 1.5 lc rgb {}", block, colour), "");
    const auto fit = fitted ? log_log_slope(curve.cells, 0.1, 200, 1) : std::nullopt;
    if (fit) {
        plot.curve(fmt::format("exp({}) * x**({}) with lines dt 2 lw 1.5 lc rgb {}", fit->intercept,
                               fit->slope[0], colour),
                   fmt::format("{} slope {:.2f} [{:.2f}, {:.2f}]", curve.name, fit->slope[0], fit->low[0],
                               fit->high[0]));
    } else {
        plot.curve(fmt::format("{} using 1:2 with lines lw 1.5 lc rgb {}", block, colour),
                   curve.name.empty() ? "mean" : curve.name);
    }
}

/// One column against one axis; log-log with fitted slopes where that means anything.
std::optional<StudyFigure> against_axis(const StudyTable& table, const std::string& axis,
                                        const std::string& column) {
    const std::vector<Curve> curves = curves_of(table, axis, column);
    const bool any = std::ranges::any_of(curves, [](const Curve& curve) { return curve.x.size() > 1; });
    if (!any) return std::nullopt;
    PlotScript plot;
    plot.labels(axis, column).set("format y '%g'").set("offsets graph 0.03, graph 0.03, 0, 0");
    const bool fitted = is_gap(column) && all_positive(curves);
    const bool wide = std::ranges::all_of(curves, [](const Curve& curve) { return curve.x.front() > 0; });
    if (wide) plot.set("logscale x").set("autoscale xfix");
    if (fitted) plot.set("logscale y");
    plot.set("key maxrows 4");
    for (std::size_t i = 0; i < curves.size(); ++i) add_curve(plot, curves[i], i, fitted);
    // Exact values and bounds lie beside a gap where the study has them.
    if (is_gap(column) && fitted && curves.size() == 1) {
        std::size_t index = 1;
        for (const std::string& other : table.columns) {
            if (other != "exact" && !other.starts_with("bound.")) continue;
            const std::vector<Curve> beside = curves_of(table, axis, other);
            if (beside.size() != 1 || !all_positive(beside)) continue;
            const std::string block = plot.data({beside[0].x, beside[0].mean});
            plot.curve(
                fmt::format("{} using 1:2 with lines lw 2 lc rgb s{}", block, ++index % kMostCurves + 1),
                other);
        }
    }
    return StudyFigure{
        fmt::format("{} against {}", column, axis),
        fitted ? "Means over seeds with their standard deviation; dashed: the fitted power law, with "
                 "its slope and 90 % interval over cells."
               : "Means over seeds with their standard deviation.",
        {fmt::format("{}_against_{}", column, element_name(axis)), plot.text(), 760, 380}};
}

/// Every bound against the gap, a point per cell, with the rank correlation.
std::optional<StudyFigure> bounds_against_gap(const StudyTable& table) {
    // Bounds speak of losses in [0, 1].
    const std::string measure = table.has("gap_error") ? "gap_error" : "gap";
    PlotScript plot;
    plot.labels("measured " + measure, "bound").set("logscale xy").set("format '%g'").set("key maxrows 4");
    double low = INFINITY, high = 0;
    std::size_t count = 0;
    for (const std::string& column : table.columns) {
        if (!column.starts_with("bound.") || count == kMostCurves) continue;
        std::vector<double> gaps, bounds;
        for (const StudyGroup& group : groups_of(table, all_rows(table))) {
            const std::vector<double> gap = column_of(group, measure), bound = column_of(group, column);
            if (gap.empty() || bound.empty() || !(mean_of(gap) > 0) || !(mean_of(bound) > 0)) continue;
            gaps.push_back(mean_of(gap));
            bounds.push_back(mean_of(bound));
        }
        if (gaps.size() < 3) continue;
        low = std::min(low, *std::ranges::min_element(gaps));
        high = std::max(high, *std::ranges::max_element(gaps));
        const double ranks = spearman(gaps, bounds);
        const std::string block = plot.data({gaps, bounds});
        plot.curve(fmt::format("{} using 1:2 with points pt 7 ps 0.7 lc rgb s{}", block, ++count),
                   fmt::format("{} (rank correlation {})", column.substr(6),
                               std::isfinite(ranks) ? fmt::format("{:.2f}", ranks) : "none"));
    }
    if (count == 0) return std::nullopt;
    plot.curve(
        fmt::format("{} using 1:2 with lines dt 2 lc rgb muted", plot.data({{low, high}, {low, high}})),
        "bound = gap");
    return StudyFigure{
        "Bounds against the gap",
        "A point per cell. Below the dashed line a bound is exceeded. A bound that is far too large but "
        "ranks cells as their gaps do is useful; one that is small and exceeded is not.",
        {"bounds_against_gap", plot.text(), 760, 420}};
}

/// The k with the least held-out loss, against every other axis.
std::optional<StudyFigure> best_k(const StudyTable& table, const std::string& top_k,
                                  const std::string& axis) {
    const char* const column = table.has("heldout_loss") ? "heldout_loss" : "heldout_error";
    std::map<double, std::map<double, std::vector<double>>> values;  // axis -> k -> losses
    for (const StudyRow& row : table.rows) {
        const auto x = number_in(row, axis), k = number_in(row, top_k), loss = number_in(row, column);
        if (x && k && loss) values[*x][*k].push_back(*loss);
    }
    std::vector<double> x, best;
    for (const auto& [place, losses] : values) {
        if (losses.size() < 2) continue;
        const auto least =
            std::ranges::min_element(losses, {}, [](const auto& entry) { return mean_of(entry.second); });
        x.push_back(place);
        best.push_back(least->first);
    }
    if (x.size() < 2) return std::nullopt;
    PlotScript plot;
    plot.labels(axis, "k").set("logscale x").set("offsets graph 0.03, graph 0.03, graph 0.1, graph 0.1");
    plot.curve(plot.data({x, best}) + " using 1:2 with linespoints pt 7 ps 0.8 lw 2 lc rgb s1",
               fmt::format("k with the least mean {}", column));
    return StudyFigure{fmt::format("Best k against {}", short_name(axis)),
                       "Over all other axes and seeds. Claims test whether it moves.",
                       {fmt::format("best_k_against_{}", element_name(axis)), plot.text(), 760, 300}};
}

}  // namespace

std::vector<std::string> numeric_axes(const StudyTable& table) {
    std::vector<std::string> axes;
    for (const std::string& axis : table.axes()) {
        std::set<double> values;
        for (const StudyRow& row : table.rows)
            if (const auto value = number_in(row, axis)) values.insert(*value);
        if (values.size() > 1) axes.push_back(axis);
    }
    return axes;
}

std::vector<StudyFigure> study_figures(const StudyTable& table, const std::vector<std::string>& claimed) {
    std::vector<StudyFigure> figures;
    const auto keep = [&](std::optional<StudyFigure> figure) {
        if (figure) figures.push_back(std::move(*figure));
    };
    const std::vector<std::string> axes = numeric_axes(table);
    std::vector<std::string> columns = claimed;  // first what the study is about
    for (const char* column : {"gap", "gap_error", "heldout_loss", "heldout_error"})
        if (!std::ranges::count(columns, column)) columns.emplace_back(column);
    for (const std::string& column : columns)
        for (const std::string& axis : axes)
            if (table.has(column)) keep(against_axis(table, axis, column));
    keep(bounds_against_gap(table));
    for (const std::string& top_k : axes)
        for (const std::string& axis : axes)
            if (short_name(top_k) == "top_k" && axis != top_k) keep(best_k(table, top_k, axis));
    return figures;
}

}  // namespace moesaic
