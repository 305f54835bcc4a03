#include "launch/report/run_page.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <tuple>

#include "launch/report/page.h"
#include "launch/report/run_figures.h"
#include "runtime/base/median.h"
#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

constexpr const char* kNoBreak = "\u00a0";  // a space that lines do not end at

std::optional<double> last_of(const RunHistory& run, const std::string& name) {
    const Series& series = run.at(name);
    return series.value.empty() ? std::nullopt : std::optional(series.value.back());
}

std::string duration_text(double seconds) {
    const auto whole = static_cast<i64>(std::llround(seconds));
    if (whole < 60) return fmt::format("{:.1f} s", seconds);
    if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
    return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

std::string run_name(const RunHistory& run) {
    const std::filesystem::path folder = std::filesystem::path(run.folder).lexically_normal();
    return folder.has_filename() ? folder.filename().string() : folder.parent_path().filename().string();
}

void add_tiles(Page& page, const RunHistory& run) {
    std::vector<Page::Tile> tiles;
    const auto add = [&](const char* label, const std::string& name, const std::string& detail) {
        if (const auto value = last_of(run, name)) tiles.push_back({label, shown(*value), detail});
    };
    const auto error_text = [&](const std::string& name) {
        const auto error = last_of(run, name);
        return error ? "error " + shown(*error) : "";
    };
    add("held-out loss", "eval.heldout_loss", error_text("eval.heldout_error"));
    add("training-probe loss", "eval.train_probe_loss", error_text("eval.train_probe_error"));
    const auto low = last_of(run, "eval.gap_low"), high = last_of(run, "eval.gap_high");
    add("gap", "eval.gap", low && high ? fmt::format("[{}, {}]", shown(*low), shown(*high)) : "no interval");
    add("training loss", "step.loss", "last batch");
    double steps = 0;
    for (const char* name : {"step.loss", "eval.heldout_loss"})
        if (!run.at(name).step.empty()) steps = std::max(steps, run.at(name).step.back());
    tiles.push_back({"steps", fmt::format("{:.0f}", steps),
                     run.seconds > 0 ? run.status + ", " + duration_text(run.seconds) : run.status});
    if (const auto tokens = last_of(run, "step.tokens"))
        tiles.push_back({"tokens seen", shown_count(*tokens), ""});
    const std::string parameters = run.fact("parameters"), active = run.fact("active_parameters");
    if (!parameters.empty())
        tiles.push_back({"parameters", shown_count(std::strtod(parameters.c_str(), nullptr)),
                         shown_count(std::strtod(active.c_str(), nullptr)) + " active per token"});
    if (const std::string world = run.fact("world_size"); !world.empty())
        tiles.push_back({"ranks", world,
                         fmt::format("expert parallel {}, data parallel {}", run.fact("expert_parallel"),
                                     run.fact("data_parallel"))});
    if (run.has("step.tokens_per_s")) {
        const auto used = last_of(run, "step.flops_utilization");
        tiles.push_back(
            {"tokens per second", shown_count(upper_median(run.at("step.tokens_per_s").value)),
             used ? fmt::format("median; {:.0f} % of the peak at the end", 100 * *used) : "median"});
    }
    const Series &time = run.at("step.step_ms"), &exchange = run.at("step.exchange_ms");
    if (!time.value.empty() && time.step == exchange.step)
        tiles.push_back(
            {"exchange",
             fmt::format("{:.0f} %", 100 * upper_median(exchange.value) / upper_median(time.value)),
             "of a step's time, by medians"});
    if (const auto memory = last_of(run, "step.memory_bytes"))
        tiles.push_back({"memory", bytes_text(*memory), "of the largest rank"});
    tiles.push_back({"alarms", std::to_string(run.alarms.size()), ""});
    page.tiles(tiles);
}

void add_bounds(Page& page, const RunHistory& run) {
    if (run.bounds.empty()) return;
    std::vector<RecordedBound> bounds = run.bounds;
    // Limits of the error, then of bits, the lowest first: whichever tier says more.
    std::ranges::stable_sort(bounds, {}, [](const RecordedBound& bound) {
        const bool limits = bound_kind(bound.name) == "risk", bits = bound.name.ends_with("_bits");
        const double value = limits && std::isfinite(bound.value) ? bound.value : limits ? INFINITY : 0.0;
        return std::tuple(!limits, limits && bits, value, bound_rank(bound.name));
    });
    PageTable table{.head = {"bound", "of the", "value", "terms", "not known to hold"},
                    .rows = {},
                    .numbers = {false, false, true}};
    for (const RecordedBound& bound : bounds) {
        std::vector<std::string> terms;
        for (const auto& [name, value] : bound.terms) terms.push_back(name + kNoBreak + shown(value));
        table.rows.push_back({bound.name, std::string(bound_kind(bound.name)),
                              shown(bound.value) + (bound.vacuous ? " (vacuous)" : ""),
                              fmt::format("{}", fmt::join(terms, " + ")),
                              fmt::format("{}", fmt::join(bound.open_assumptions, ", "))});
    }
    page.paragraph(
        fmt::format("Bounds at step {}. Vacuous: at least the range of the loss, so that it says "
                    "nothing. A trend is no certificate, and serves to compare runs.",
                    run.bounds_step));
    page.table(table);
}

void add_experts(Page& page, const RunHistory& run) {
    if (run.layers.empty()) return;
    const std::vector<std::pair<const char*, const char*>> fields{{"max_over_mean", "busiest / mean"},
                                                                  {"evenness", "evenness"},
                                                                  {"dead", "without tokens"},
                                                                  {"router_entropy", "router entropy"},
                                                                  {"first_weight_mean", "first weight"},
                                                                  {"dropped_fraction", "dropped"}};
    PageTable table{.head = {"layer"}, .rows = {}, .numbers = std::vector<bool>(fields.size() + 1, true)};
    for (const auto& [field, label] : fields) table.head.emplace_back(label);
    for (const auto& [layer, series] : run.layers) {
        std::vector<std::string> row{std::to_string(layer)};
        for (const auto& [field, label] : fields) {
            const auto found = series.find(field);
            row.push_back(found == series.end() || found->second.value.empty()
                              ? "-"
                              : shown(found->second.value.back()));
        }
        table.rows.push_back(row);
    }
    page.paragraph("The routers at the last recorded step:");
    page.table(table);
}

void add_alarms(Page& page, const RunHistory& run) {
    page.section("Alarms");
    if (run.alarms.empty()) {
        page.paragraph("None was raised.");
        return;
    }
    constexpr std::size_t kMostRows = 200;
    PageTable table{.head = {"step", "kind", "action", "message"}, .rows = {}, .numbers = {true}};
    for (std::size_t i = 0; i < std::min(kMostRows, run.alarms.size()); ++i) {
        const RecordedAlarm& alarm = run.alarms[i];
        table.rows.push_back({std::to_string(alarm.step), alarm.kind, alarm.action, alarm.message});
    }
    page.table(table);
    if (run.alarms.size() > kMostRows)
        page.paragraph(fmt::format("... and {} more.", run.alarms.size() - kMostRows));
}

void add_environment(Page& page, const RunHistory& run) {
    page.section("Environment and configuration");
    PageTable table{.head = {"what", "value"}, .rows = {}, .numbers = {}};
    for (const auto& [name, value] : run.facts) table.rows.push_back({name, value});
    table.rows.push_back({"checkpoints written", std::to_string(run.checkpoints)});
    page.table(table);
    if (!run.config.empty()) page.folded("The whole configuration", run.config);
}

}  // namespace

std::string run_page(const RunHistory& run, const Gnuplot& gnuplot) {
    const std::string version = run.fact("version"), commit = run.fact("commit");
    Page page(
        "Run " + run_name(run),
        fmt::format("{}  {}", version.empty() ? "Moesaic" : fmt::format("Moesaic {} ({})", version, commit),
                    run.folder));
    page.notes(run.notes);
    if (!run.meaning.empty()) page.paragraph(run.meaning);
    add_tiles(page, run);
    std::string_view section;
    // What follows a section's figures.
    const auto close_section = [&] {
        if (section == "Generalization") add_bounds(page, run);
        if (section == "Experts") add_experts(page, run);
    };
    for (const RunFigure& figure : run_figures()) {
        if (!is_drawable(figure, run)) continue;
        if (figure.section != section) {
            close_section();
            section = figure.section;
            page.section(section);
        }
        page.figure(figure.title, gnuplot.draw(drawing_of(figure, run), FigureFormat::page), figure.caption);
    }
    close_section();
    if (section.empty())
        page.paragraph("No step and no evaluation is recorded, so there is nothing to draw.");
    add_alarms(page, run);
    add_environment(page, run);
    return page.html();
}

}  // namespace moesaic
