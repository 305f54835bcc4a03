#include "launch/report/run_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "launch/report/domain_map.h"
#include "launch/report/load_map.h"

namespace moesaic {

namespace {

constexpr std::size_t kMostPoints = 1500;  // of a curve; more than there are pixels
constexpr std::size_t kMostLines = 8;      // that a reader can tell apart
constexpr double kBarsApart = 0.008;       // of the last step

std::string colour(std::size_t index) {
    return fmt::format("s{}", index % kMostLines + 1);
}

/// A line; one point alone is a mark, or nothing would be seen of it.
void add_line(PlotScript& plot, const Series& series, const std::string& title,
              const std::string& colour_name, std::string_view style = "", double scale = 1) {
    if (series.step.empty()) return;
    Series shown = thinned(series, kMostPoints);
    for (double& value : shown.value) value *= scale;
    const std::string block = plot.data({shown.step, shown.value});
    const bool few = shown.step.size() < 12;
    plot.curve(fmt::format("{} using 1:2 with {} lw 2 lc rgb {} {}", block,
                           few ? "linespoints pt 7 ps 0.6" : "lines", colour_name, style),
               title);
}

/// From step 0 on: around a single evaluation the axis would have the same step at every tic.
PlotScript by_step(std::string_view y) {
    PlotScript plot;
    plot.labels("step", y).set("format x '%.0f'").set("xrange [*<0:*]");
    return plot;
}

std::string loss_script(const RunHistory& run) {
    PlotScript plot = by_step("loss");
    add_line(plot, run.at("step.loss"), "training batch", "s1");
    add_line(plot, run.at("eval.train_probe_loss"), "training probe", "s3");
    add_line(plot, run.at("eval.train_unseen_loss"), "training data not yet seen", "s5");
    add_line(plot, run.at("eval.heldout_loss"), "held out", "s2");
    return plot.text();
}

std::string error_script(const RunHistory& run) {
    PlotScript plot = by_step("error (0-1 loss)");
    add_line(plot, run.at("eval.train_probe_error"), "training probe", "s3");
    add_line(plot, run.at("eval.heldout_error"), "held out", "s2");
    return plot.text();
}

std::string sources_script(const RunHistory& run) {
    const std::string prefix = "eval.heldout_by_source.";
    PlotScript plot = by_step("held-out loss");
    std::size_t count = 0;
    for (const auto& [name, series] : run.series)
        if (name.starts_with(prefix) && count < kMostLines)
            add_line(plot, series, name.substr(prefix.size()), colour(count++));
    return plot.text();
}

/// Step, value, low, high of the evaluations that have a value.
using IntervalColumns = std::array<std::vector<double>, 4>;
IntervalColumns interval_columns(const Series& middle, const Series& low, const Series& high) {
    IntervalColumns columns;
    const auto value_at = [](const Series& series, double step) {
        const auto found = std::ranges::lower_bound(series.step, step);
        const bool there = found != series.step.end() && *found == step;
        return there ? series.value[static_cast<std::size_t>(found - series.step.begin())] : std::nan("");
    };
    for (std::size_t i = 0; i < middle.step.size(); ++i) {
        columns[0].push_back(middle.step[i]);
        columns[1].push_back(middle.value[i]);
        columns[2].push_back(value_at(low, middle.step[i]));
        columns[3].push_back(value_at(high, middle.step[i]));
    }
    return columns;
}

IntervalColumns gap_columns(const RunHistory& run) {
    return interval_columns(run.at("eval.gap"), run.at("eval.gap_low"), run.at("eval.gap_high"));
}

/// The gap and its interval, bars or a band by their number.
void add_gap(PlotScript& plot, const IntervalColumns& gap) {
    const std::string block = plot.data({gap[0], gap[1], gap[2], gap[3]});
    if (gap[0].size() > 40) {
        plot.curve(block + " using 1:3:4 with filledcurves fs transparent solid 0.25 noborder lc rgb s1",
                   "interval");
    } else {
        plot.curve(block + " using 1:2:3:4 with yerrorbars pt 7 ps 0.5 lw 2 lc rgb s1", "interval");
    }
    plot.curve(block + " using 1:2 with lines lw 2 lc rgb s1", "measured gap");
}

std::string gap_script(const RunHistory& run) {
    PlotScript plot = by_step("held-out - training probe");
    plot.set("xzeroaxis lt 1 lw 1 lc rgb muted").set("offsets graph 0.02, graph 0.02, 0, 0");
    add_gap(plot, gap_columns(run));
    return plot.text();
}

/// The gap of every bounded loss that is recorded, with its limits.
std::string bounded_gaps_script(const RunHistory& run) {
    const std::string prefix = "eval.gaps.", suffix = ".value";
    PlotScript plot = by_step("gap");
    plot.set("xzeroaxis lt 1 lw 1 lc rgb muted").set("offsets graph 0.03, graph 0.03, 0, 0");
    std::size_t count = 0;
    for (const auto& [name, series] : run.series) {
        if (!name.starts_with(prefix) || !name.ends_with(suffix) || count == kMostLines) continue;
        const std::string loss = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
        IntervalColumns gap =
            interval_columns(series, run.at(prefix + loss + ".low"), run.at(prefix + loss + ".high"));
        // Side by side, or one loss's bars would hide another's.
        const double apart = gap[0].empty() ? 0 : kBarsApart * gap[0].back();
        for (double& step : gap[0]) step += apart * static_cast<double>(count);
        const std::string block = plot.data({gap[0], gap[1], gap[2], gap[3]}), with = colour(count++);
        plot.curve(fmt::format("{} using 1:2:3:4 with yerrorbars pt 7 ps 0.5 lw 1.5 lc rgb {}", block, with),
                   "");
        plot.curve(fmt::format("{} using 1:2 with lines lw 2 lc rgb {}", block, with), loss);
    }
    return plot.text();
}

/// Names of recorded bounds of these kinds, what certifies most first.
std::vector<std::string> bounds_of_kind(const RunHistory& run,
                                        std::initializer_list<std::string_view> kinds) {
    const std::string prefix = "bound.";
    std::vector<std::string> names;
    for (const auto& [name, series] : run.series) {
        if (!name.starts_with(prefix) || series.step.empty()) continue;
        const std::string bound = name.substr(prefix.size());
        if (std::ranges::find(kinds, bound_kind(bound)) != kinds.end()) names.push_back(bound);
    }
    std::ranges::stable_sort(names, {}, [](const std::string& name) { return bound_rank(name); });
    return names;
}

void add_bounds(PlotScript& plot, const RunHistory& run, const std::vector<std::string>& names) {
    for (std::size_t i = 0; i < names.size() && i < 7; ++i) {
        const bool trend = bound_kind(names[i]) == "trend";
        const auto bound = std::ranges::find(run.bounds, names[i], &RecordedBound::name);
        std::string_view mark, dashes;
        if (trend) {
            mark = " (trend)", dashes = "dt 2";
        } else if (bound != run.bounds.end() && bound->violated) {
            mark = " (violated)", dashes = "dt 3";
        }
        add_line(plot, run.at("bound." + names[i]), fmt::format("{}{}", names[i], mark), colour(i + 1),
                 dashes);
    }
}

std::string gap_bounds_script(const RunHistory& run) {
    PlotScript plot = by_step("gap (log scale)");
    const auto names = bounds_of_kind(run, {"gap", "trend"});
    auto gap = gap_columns(run);
    // On a log axis what is not positive has no place: it is cut at a floor below everything else.
    double lowest = INFINITY;
    for (const double high : gap[3])
        if (high > 0) lowest = std::min(lowest, high);
    for (const std::string& name : names)
        for (const double value : run.at("bound." + name).value)
            if (value > 0) lowest = std::min(lowest, value);
    const double floor = std::isfinite(lowest) ? lowest / 4 : 1e-3;
    for (std::size_t i = 0; i < gap[0].size(); ++i) {
        gap[2][i] = std::max(gap[2][i], floor);
        if (gap[1][i] < floor) gap[1][i] = std::nan("");
        if (gap[3][i] < floor) gap[2][i] = gap[3][i] = std::nan("");
    }
    plot.set("logscale y").set("format y '%g'").set(fmt::format("yrange [{}:*]", floor));
    plot.set("offsets graph 0.02, graph 0.02, 0, 0");
    add_bounds(plot, run, names);
    if (!gap[0].empty()) add_gap(plot, gap);
    return plot.text();
}

std::string risk_bounds_script(const RunHistory& run) {
    PlotScript plot = by_step("loss, in [0, 1] (log scale)");
    std::vector<std::string> names = bounds_of_kind(run, {"risk"});
    std::erase_if(names, [](const std::string& name) { return name.ends_with("_bits"); });
    std::vector<double> values = run.at("eval.heldout_error").value;
    for (const std::string& name : names)
        std::ranges::copy(run.at("bound." + name).value, std::back_inserter(values));
    plot.log_axis('y', values);
    add_bounds(plot, run, names);
    add_line(plot, run.at("eval.heldout_error"), "held-out error", "s1");
    return plot.text();
}

/// One line per layer; of many layers eight, evenly chosen.
std::string layers_script(const RunHistory& run, const std::string& field, std::string_view y) {
    PlotScript plot = by_step(y);
    std::vector<i64> layers;
    for (const auto& [layer, fields] : run.layers)
        if (fields.contains(field)) layers.push_back(layer);
    const std::vector<i64> shown = evenly_chosen(layers, kMostLines);
    for (std::size_t i = 0; i < shown.size(); ++i)
        add_line(plot, run.layers.at(shown[i]).at(field), fmt::format("layer {}", shown[i]), colour(i));
    return plot.text();
}

std::string entropy_script(const RunHistory& run) {
    return layers_script(run, run.has("experts.router_entropy") ? "router_entropy" : "entropy", "nats");
}

std::string imbalance_script(const RunHistory& run) {
    return layers_script(run, "max_over_mean", "busiest expert / mean");
}

std::string throughput_script(const RunHistory& run) {
    PlotScript plot = by_step("tokens / s");
    plot.set("yrange [0:*]").set("format y '%.1s%c'");
    add_line(plot, run.at("step.tokens_per_s"), "tokens per second", "s1");
    return plot.text();
}

std::string time_script(const RunHistory& run) {
    PlotScript plot = by_step("ms");
    plot.set("yrange [0:*]");
    add_line(plot, run.at("step.step_ms"), "step", "s1");
    add_line(plot, run.at("step.exchange_ms"), "of it exchange", "s2");
    return plot.text();
}

std::string gradient_script(const RunHistory& run) {
    PlotScript plot = by_step("L2 norm (log scale)");
    plot.set("logscale y").set("format y '%g'");
    add_line(plot, run.at("step.grad_norm"), "gradient before clipping", "s1");
    return plot.text();
}

std::string rate_script(const RunHistory& run) {
    PlotScript plot = by_step("learning rate");
    plot.set("yrange [0:*]").set("format y '%g'");
    add_line(plot, run.at("step.lr"), "learning rate", "s1");
    return plot.text();
}

const std::vector<RunFigure> kFigures{
    {"loss",
     "Loss",
     "Loss",
     "Nats per token, or the task's loss; auxiliary terms are not in it. The training "
     "batch's loss is that of the weights before the step.",
     {"step.loss", "eval.heldout_loss"},
     360,
     loss_script},
    {"error",
     "Loss",
     "Error",
     "Share of predictions whose first choice is wrong.",
     {"eval.heldout_error", "eval.train_probe_error"},
     300,
     error_script},
    {"sources",
     "Loss",
     "Held-out loss by source",
     "By file, or by source of a blend.",
     {"eval.heldout_by_source"},
     320,
     sources_script},
    {"gap_bounds",
     "Generalization",
     "Gap and bounds",
     "Upper bounds on the gap beside what was measured; what is "
     "not above 0 is cut at the lower edge. A bound is a promise only where its assumptions hold (table "
     "below); dotted where one is violated.",
     {"bounds.gap"},
     400,
     gap_bounds_script},
    {"risk_bounds",
     "Generalization",
     "Limits on the loss itself",
     "Certificates from fresh or held-out data, "
     "and others that limit the true loss. They speak of a loss between 0 and 1.",
     {"bounds.risk"},
     360,
     risk_bounds_script},
    {"gap",
     "Generalization",
     "Generalization gap",
     "Held-out minus training-probe loss under the same weights, "
     "with its interval. Where the interval holds 0, none was measured.",
     {"eval.gap"},
     300,
     gap_script},
    {"bounded_gaps",
     "Generalization",
     "Gaps of bounded losses",
     "Held-out minus training-probe loss of losses with a range, with limits that hold at all evaluations at "
     "once.",
     {"eval.gaps"},
     320,
     bounded_gaps_script},
    {"load",
     "Experts",
     "Load of the experts",
     "Tokens per expert over the mean, by layer and step: 1 is even, "
     "0 is an expert without tokens; from 2 on one colour.",
     {"experts.load"},
     0,
     load_map_script},
    {"domains",
     "Experts",
     "Domains and experts",
     "Share of a domain's held-out choices that each expert has, over an even share; mutual information "
     "of domain and expert, and its chance among shuffled domains.",
     {"eval.mutual_information"},
     0,
     domain_map_script},
    {"entropy",
     "Experts",
     "Entropy of the router",
     "Mean over tokens of the entropy of the router's distribution: "
     "0 is certainty, the logarithm of the number of experts is none.",
     {"experts.router_entropy", "experts.entropy"},
     320,
     entropy_script},
    {"imbalance",
     "Experts",
     "Imbalance",
     "The busiest expert's tokens over the mean of the layer.",
     {"experts.max_over_mean"},
     320,
     imbalance_script},
    {"throughput", "Speed", "Throughput", "", {"step.tokens_per_s"}, 280, throughput_script},
    {"step_time",
     "Speed",
     "Time of a step",
     "The slowest rank's, and the part of it in which rows were exchanged.",
     {"step.step_ms"},
     280,
     time_script},
    {"gradient", "Optimization", "Gradient norm", "", {"step.grad_norm"}, 280, gradient_script},
    {"learning_rate", "Optimization", "Learning rate", "", {"step.lr"}, 240, rate_script},
};

}  // namespace

std::span<const RunFigure> run_figures() {
    return kFigures;
}

bool is_drawable(const RunFigure& figure, const RunHistory& run) {
    return std::ranges::any_of(figure.needs, [&](std::string_view need) {
        if (need == "bounds.gap") return !bounds_of_kind(run, {"gap", "trend"}).empty();
        if (need == "bounds.risk") return !bounds_of_kind(run, {"risk"}).empty();
        const std::string prefix = std::string(need) + ".";
        const auto family = run.series.lower_bound(prefix);
        return run.has(need) || (family != run.series.end() && family->first.starts_with(prefix));
    });
}

Drawing drawing_of(const RunFigure& figure, const RunHistory& run) {
    Drawing drawing{.name = std::string(figure.name), .script = figure.script(run)};
    const bool of_domains = figure.script == domain_map_script;
    drawing.height = figure.height > 0 ? figure.height
                     : of_domains      ? domain_map_height(run)
                                       : load_map_height(run);
    return drawing;
}

Series thinned(const Series& series, std::size_t most) {
    const std::size_t count = series.step.size();
    if (count <= most) return series;
    Series kept;
    const std::size_t stretches = std::max<std::size_t>(1, most / 2);
    for (std::size_t part = 0; part < stretches; ++part) {
        const auto begin = series.value.begin() + static_cast<std::ptrdiff_t>(part * count / stretches);
        const auto end = series.value.begin() + static_cast<std::ptrdiff_t>((part + 1) * count / stretches);
        auto [first, second] = std::minmax_element(begin, end);
        if (first > second) std::swap(first, second);
        for (const auto& at : {first, second}) {
            const auto index = static_cast<std::size_t>(at - series.value.begin());
            if (!kept.step.empty() && kept.step.back() == series.step[index]) continue;
            kept.step.push_back(series.step[index]);
            kept.value.push_back(series.value[index]);
        }
    }
    return kept;
}

}  // namespace moesaic
