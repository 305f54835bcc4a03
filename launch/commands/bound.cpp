// moesaic bound: the bound calculator.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "launch/commands/bound_points.h"
#include "launch/commands/run_bounds.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

using Results = std::vector<NamedBound>;

Results compute(const std::vector<const Bound*>& bounds, const BoundInputs& inputs) {
    Results results;
    for (const Bound* const bound : bounds)
        results.push_back({std::string(bound->name), bound->kind, bound->compute(inputs)});
    return results;
}

std::string short_number(double value) {
    return fmt::format("{:.4g}", value);
}

std::string json_of(const Results& results) {
    JsonLine object;
    for (const NamedBound& bound : results) object.field(bound.name, bound.result);
    return object.text();
}

/// What the value of such a bound is.
std::string heading(BoundKind kind, double delta) {
    const std::string chance = fmt::format("with probability {:g} or more", 1 - delta);
    switch (kind) {
        case BoundKind::risk:
            return "risk: the true loss is at most this, " + chance;
        case BoundKind::gap:
            return "gap: the true loss exceeds the training loss by at most this, " + chance;
        case BoundKind::trend:
            return "trend: expressions to compare configurations by, no certificates";
        case BoundKind::measure:
            return "measure: numbers to compare runs by, no certificates";
        case BoundKind::dimension:
            return "dimension: counts";
        case BoundKind::prediction:
            break;
    }
    return "prediction: fitted laws, nats per token";
}

std::string terms_text(const BoundResult& result) {
    std::string text;
    for (const auto& [name, value] : result.terms.list) {
        if (value != 0) text += fmt::format("{}{} {}", text.empty() ? "" : " + ", name, short_number(value));
    }
    std::string details;
    for (const auto& [name, value] : result.details.list)
        details += fmt::format("{}{} {}", details.empty() ? "" : ", ", name, short_number(value));
    if (details.empty()) return text;
    return text.empty() ? details : fmt::format("{}  ({})", text, details);
}

void print_values(const Results& results, double delta) {
    std::size_t width = 0;
    for (const NamedBound& bound : results) width = std::max(width, bound.name.size());
    BoundKind last{};
    bool first = true;
    for (const auto& [name, kind, result] : results) {
        if (first || kind != last) {
            std::printf("%s%s\n", first ? "" : "\n", heading(kind, delta).c_str());
        }
        first = false;
        last = kind;
        fmt::print("  {:<{}}  {:>10}  {:<7}  {}\n", name, width, short_number(result.value),
                   result.vacuous ? "vacuous" : "", terms_text(result));
    }
}

/// Each assumption once, with the bounds that make it.
void print_assumptions(const Results& results) {
    struct Row {
        Assumption assumption;
        std::vector<std::string_view> bounds;
    };
    std::vector<Row> rows;
    for (const auto& [name, kind, result] : results) {
        for (const Assumption& assumption : result.assumptions) {
            const auto same = std::find_if(rows.begin(), rows.end(), [&](const Row& row) {
                return row.assumption.name == assumption.name && row.assumption.status == assumption.status &&
                       row.assumption.meaning == assumption.meaning;
            });
            if (same == rows.end())
                rows.push_back({assumption, {name}});
            else
                same->bounds.push_back(name);
        }
    }
    fmt::print("\nassumptions\n");
    for (const Row& row : rows) {
        fmt::print("  {:<24}  {:<8}  {}\n", row.assumption.name, name_of(row.assumption.status),
                   row.assumption.meaning);
        if (row.bounds.size() < results.size()) fmt::print("{:38}of {}\n", "", fmt::join(row.bounds, ", "));
    }
}

void print_point(const BoundPoints& request, const Results& results) {
    const BoundInputs& inputs = request.points.front();
    print_values(results, *inputs.delta);
    print_assumptions(results);
    const std::size_t left = bound_table().size() - results.size();
    if (left > 0) fmt::print("\n{} more bounds need other numbers: moesaic bound --list\n", left);
}

void print_table(const BoundPoints& request) {
    constexpr int kNumber = 9;
    fmt::print("{:>8} {:>8} {:>{}}", "experts", "top_k", "samples", kNumber);
    for (const Bound* const bound : request.bounds)
        fmt::print("  {:>{}}", bound->name, std::max<std::size_t>(bound->name.size(), kNumber));
    fmt::print("\n");
    const auto number = [](const BoundInputs::Number& value) {
        return value ? fmt::format("{:g}", *value) : "-";
    };
    bool vacuous = false;
    for (const BoundInputs& point : request.points) {
        fmt::print("{:>8} {:>8} {:>{}}", number(point.experts), number(point.top_k), number(point.samples),
                   kNumber);
        for (const auto& [name, kind, result] : compute(request.bounds, point)) {
            vacuous |= result.vacuous;
            fmt::print("  {:>{}}", short_number(result.value) + (result.vacuous ? "*" : ""),
                       std::max<std::size_t>(name.size(), kNumber));
        }
        fmt::print("\n");
    }
    if (vacuous) fmt::print("* vacuous: not below the range of the loss\n");
}

void print_table_as_json(const BoundPoints& request) {
    for (const BoundInputs& point : request.points) {
        std::map<std::string, BoundResult> bounds;
        for (const NamedBound& bound : compute(request.bounds, point))
            bounds.emplace(bound.name, bound.result);
        JsonLine line;
        line.field("experts", point.experts).field("top_k", point.top_k).field("samples", point.samples);
        line.field("bounds", bounds);
        fmt::print("{}\n", line.text());
    }
}

void print_list() {
    for (const Bound& bound : bound_table()) {
        std::string needs;
        for (const std::string& input : missing_inputs(bound, {})) {
            const std::size_t bar = input.find('|');
            needs += " " + bound_option(input.substr(0, bar));
            if (bar != std::string::npos) needs += "|" + bound_option(input.substr(bar + 1));
        }
        fmt::print("{:<26} {:<10}  {}\n{:39}source {}\n{:39}needs {}\n", bound.name, name_of(bound.kind),
                   bound.help, "", bound.source, "", needs.substr(std::min<std::size_t>(1, needs.size())));
    }
}

}  // namespace

int bound_command(const BoundOptions& options) {
    const bool of_run = !options.run.empty() && options.unknown.empty() && options.values.empty() &&
                        options.gate.empty() && options.bounds.empty() && !options.list;
    if (of_run) {
        const RunBounds run = read_run_bounds(options.run);
        if (!options.print) return 0;
        if (options.json) {
            fmt::print("{}\n", json_of(run.bounds));
            return 0;
        }
        fmt::print("{}, the evaluation at step {}\n", options.run, run.step);
        print_values(run.bounds, run.delta);
        print_assumptions(run.bounds);
        if (!run.meaning.empty()) fmt::print("\n{}\n", run.meaning);
        return 0;
    }
    const bool only_list = options.list && options.unknown.empty() && options.run.empty();
    const BoundPoints request = only_list ? BoundPoints{} : read_bound_points(options);
    if (!options.print) return 0;
    if (only_list) {
        print_list();
    } else if (request.table) {
        options.json ? print_table_as_json(request) : print_table(request);
    } else {
        const Results results = compute(request.bounds, request.points.front());
        if (options.json)
            fmt::print("{}\n", json_of(results));
        else
            print_point(request, results);
    }
    return 0;
}

}  // namespace moesaic
