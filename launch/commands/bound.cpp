// moesaic bound: the bound calculator.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "launch/commands/bound_points.h"
#include "launch/commands/print_bounds.h"
#include "runtime/config/diagnostics.h"
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

std::string json_of(const Results& results) {
    JsonLine object;
    for (const NamedBound& bound : results) object.field(bound.name, bound.result);
    return object.text();
}

void print_point(const BoundPoints& request, const Results& results) {
    const BoundInputs& inputs = request.points.front();
    print_bound_values(results, *inputs.delta);
    print_bound_assumptions(results);
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
            fmt::print("  {:>{}}", short_bound_number(result.value) + (result.vacuous ? "*" : ""),
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

/// Everything but a run is for other uses of the command.
void check_pac_bayes_options(const BoundOptions& options) {
    Diagnostics mistakes;
    for (const std::string& word : options.unknown)
        mistakes.add({"moesaic bound", word, "is no option", "see moesaic bound --help"});
    if (options.run.empty())
        mistakes.add({"moesaic bound", "--pac-bayes", "needs a run", "moesaic bound RUN --pac-bayes"});
    for (const auto& [name, text] : options.values)
        mistakes.add({"moesaic bound", name, "does not go with --pac-bayes", "it is measured on the run"});
    if (!options.gate.empty() || !options.bounds.empty() || options.list)
        mistakes.add(
            {"moesaic bound", "--gate, --bounds, --list", "do not go with --pac-bayes", "leave them out"});
    mistakes.throw_if_any();
}

}  // namespace

int bound_command(const BoundOptions& options) {
    if (options.pac_bayes) {
        check_pac_bayes_options(options);
        return bound_pac_bayes_command(options);
    }
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
        print_bound_values(run.bounds, run.delta);
        print_bound_assumptions(run.bounds);
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
