#include "launch/commands/print_bounds.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

namespace moesaic {

namespace {

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
        if (value != 0)
            text += fmt::format("{}{} {}", text.empty() ? "" : " + ", name, short_bound_number(value));
    }
    std::string details;
    for (const auto& [name, value] : result.details.list)
        details += fmt::format("{}{} {}", details.empty() ? "" : ", ", name, short_bound_number(value));
    if (details.empty()) return text;
    return text.empty() ? details : fmt::format("{}  ({})", text, details);
}

}  // namespace

std::string short_bound_number(double value) {
    return fmt::format("{:.4g}", value);
}

void print_bound_values(const std::vector<NamedBound>& results, double delta) {
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
        fmt::print("  {:<{}}  {:>10}  {:<7}  {}\n", name, width, short_bound_number(result.value),
                   result.vacuous ? "vacuous" : "", terms_text(result));
    }
}

void print_bound_assumptions(const std::vector<NamedBound>& results) {
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

}  // namespace moesaic
