#include "launch/report/study_figures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "launch/report/bound_kinds.h"
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

std::string text_in(const StudyRow& row, const std::string& column) {
    const auto found = row.find(column);
    return found == row.end() ? "" : found->second;
}

/// Whether `key` takes several values at one value of the axis; what goes along with it does not.
bool splits(const StudyTable& table, const std::string& axis, const std::string& key) {
    std::map<std::string, std::string> value_at;
    return std::ranges::any_of(table.rows, [&](const StudyRow& row) {
        return value_at.try_emplace(text_in(row, axis), text_in(row, key)).first->second != text_in(row, key);
    });
}

bool go_together(const StudyTable& table, const std::string& one, const std::string& other) {
    return !splits(table, one, other) && !splits(table, other, one);
}

/// Of axes that change together one alone: the number of examples where that goes with them, else the first.
std::vector<std::string> independent_axes(const StudyTable& table, const std::vector<std::string>& axes) {
    const std::string samples = "training_samples";
    std::vector<std::string> chosen;
    for (const std::string& axis : axes) {
        const bool of_samples = table.has(samples) && go_together(table, axis, samples);
        const std::string& one = of_samples ? samples : axis;
        if (std::ranges::none_of(chosen,
                                 [&](const std::string& other) { return go_together(table, one, other); }))
            chosen.push_back(one);
    }
    return chosen;
}

/// Those that change along with this one.
std::vector<std::string> companions(const StudyTable& table, const std::string& axis) {
    std::vector<std::string> others;
    for (const std::string& other : numeric_axes(table))
        if (other != axis && go_together(table, axis, other)) others.push_back(other);
    return others;
}

/// "experts=4 top_k=2": where a row lies on these axes.
std::string place_text(const StudyRow& row, const std::vector<std::string>& axes) {
    std::vector<std::string> parts;
    for (const std::string& axis : axes) parts.push_back(short_name(axis) + "=" + text_in(row, axis));
    return fmt::format("{}", fmt::join(parts, " "));
}

/// A line of means with the scatter of seeds, by the values of the other axes.
struct Curve {
    std::string name;
    std::vector<double> x, mean, deviation;
    std::vector<Cell> cells;
};

/// In the order of the grid.
std::vector<Curve> curves_of(const StudyTable& table, const std::string& axis, const std::string& column) {
    std::vector<std::string> others = independent_axes(table, table.axes());
    std::erase_if(others, [&](const std::string& key) { return key == axis || !splits(table, axis, key); });
    std::vector<std::string> names;
    std::map<std::string, std::map<double, std::vector<double>>> values;
    for (const StudyGroup& group : groups_of(table, all_rows(table))) {
        const auto x = number_in(*group.rows.front(), axis);
        const std::vector<double> y = column_of(group, column);
        if (!x || y.empty()) continue;
        const std::string name = place_text(*group.rows.front(), others);
        if (!values.contains(name)) names.push_back(name);
        values[name][*x] = y;
    }
    std::vector<Curve> curves;
    for (const std::string& name : names) {
        const auto& points = values.at(name);
        Curve curve{name, {}, {}, {}, {}};
        for (const auto& [x, y] : points) {
            curve.x.push_back(x);
            curve.mean.push_back(mean_of(y));
            curve.deviation.push_back(deviation_of(y));
            curve.cells.push_back({{x}, y});
        }
        curves.push_back(std::move(curve));
    }
    return curves;
}

std::vector<Curve> evenly_chosen(const std::vector<Curve>& curves) {
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

/// With the fitted law where there is one.
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

/// For these values of x, with a number at each where they are few.
void add_axis(PlotScript& plot, const std::set<double>& values) {
    constexpr std::size_t kMostTics = 10;
    if (*values.begin() > 0) plot.log_axis('x', {values.begin(), values.end()});
    if (values.size() <= kMostTics) plot.set(fmt::format("xtics ({})", fmt::join(values, ", ")));
}

/// The measure that bounds of a gap speak of, losses in [0, 1].
std::string bounded_measure(const StudyTable& table) {
    return table.has("gap_error") ? "gap_error" : "gap";
}

bool is_bound_of_gap(const std::string& column) {
    return column.starts_with("bound.") && bound_kind(column.substr(6)) != "risk";
}

/// Exact values and bounds of a gap, where the study has them.
std::map<std::string, Curve> curves_beside(const StudyTable& table, const std::string& axis,
                                           const std::string& column) {
    std::map<std::string, Curve> beside;
    if (column != bounded_measure(table)) return beside;
    for (const std::string& other : table.columns) {
        if (other != "exact" && !is_bound_of_gap(other)) continue;
        const std::vector<Curve> curves = curves_of(table, axis, other);
        if (curves.size() == 1 && all_positive(curves)) beside.emplace(other, curves.front());
    }
    return beside;
}

/// One column against one axis; log-log with fitted slopes where that means anything.
std::optional<StudyFigure> against_axis(const StudyTable& table, const std::string& axis,
                                        const std::string& column) {
    const std::vector<Curve> all = curves_of(table, axis, column), curves = evenly_chosen(all);
    const bool any = std::ranges::any_of(curves, [](const Curve& curve) { return curve.x.size() > 1; });
    if (!any) return std::nullopt;
    PlotScript plot;
    plot.labels(axis, column).set("format y '%g'").set("offsets graph 0.03, graph 0.03, 0, 0");
    std::set<double> places;
    for (const Curve& curve : curves) places.insert(curve.x.begin(), curve.x.end());
    add_axis(plot, places);
    const bool fitted = is_gap(column) && all_positive(curves);
    std::map<std::string, Curve> beside;
    if (fitted && curves.size() == 1) beside = curves_beside(table, axis, column);
    std::vector<double> heights;
    for (const Curve& curve : curves) {
        for (std::size_t i = 0; i < curve.mean.size(); ++i) {
            heights.push_back(curve.mean[i] + curve.deviation[i]);
            heights.push_back(std::max(curve.mean[i] - curve.deviation[i], curve.mean[i] / 2));
        }
    }
    for (const auto& [name, curve] : beside) std::ranges::copy(curve.mean, std::back_inserter(heights));
    if (fitted) plot.log_axis('y', heights);
    plot.set("key maxrows 4");
    for (std::size_t i = 0; i < curves.size(); ++i) add_curve(plot, curves[i], i, fitted);
    std::size_t index = 1;
    for (const auto& [name, curve] : beside) {
        const std::string block = plot.data({curve.x, curve.mean});
        plot.curve(fmt::format("{} using 1:2 with lines lw 2 lc rgb s{}", block, ++index % kMostCurves + 1),
                   name);
    }
    std::string caption = "Means over seeds with their standard deviation";
    if (fitted) caption += "; dashed: the fitted power law, with its slope and 90 % interval over cells";
    if (curves.size() < all.size())
        caption += fmt::format("; {} of {} curves, evenly chosen", curves.size(), all.size());
    if (const auto others = companions(table, axis); !others.empty())
        caption += fmt::format("; {} change with it", fmt::join(others, ", "));
    return StudyFigure{fmt::format("{} against {}", column, axis),
                       caption + ".",
                       {fmt::format("{}_against_{}", column, element_name(axis)), plot.text(), 760, 380}};
}

/// Every bound against the gap, a point per cell, with the rank correlation.
std::optional<StudyFigure> bounds_against_gap(const StudyTable& table) {
    const std::string measure = bounded_measure(table);
    PlotScript plot;
    plot.labels("measured " + measure, "bound").set("logscale xy").set("format '%g'").set("key maxrows 4");
    double low = INFINITY, high = 0;
    std::size_t count = 0;
    for (const std::string& column : table.columns) {
        if (!is_bound_of_gap(column) || count == kMostCurves) continue;
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
    plot.labels(axis, "k").set("offsets graph 0.03, graph 0.03, graph 0.1, graph 0.1");
    add_axis(plot, {x.begin(), x.end()});
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
    const std::vector<std::string> axes = independent_axes(table, numeric_axes(table));
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
