#include "runtime/metrics/explain.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/metrics/bounds/bound_table.h"

namespace moesaic {

namespace {

using Bounds = std::map<std::string, BoundResult>;

const BoundResult* find(const Bounds& bounds, const std::string& name) {
    const auto found = bounds.find(name);
    return found == bounds.end() ? nullptr : &found->second;
}

/// Not a number where the bound does not have it.
double number_of(const BoundTerms& terms, std::string_view name) {
    for (const auto& [term, value] : terms.list) {
        if (term == name) return value;
    }
    return std::numeric_limits<double>::quiet_NaN();
}
double units_of(const BoundResult& bound) {
    return number_of(bound.details, "units");
}
double empirical_of(const BoundResult& bound) {
    return number_of(bound.terms, "empirical");
}

/// What is known of data that the model has not met.
std::string certified(const EvalRecord& record, double delta) {
    const double confidence = 100 * (1 - delta);
    std::string text;
    if (const BoundResult* const heldout = find(record.bounds, "heldout"))
        text += fmt::format(
            "On new data the model is wrong in {:.1f} % of its answers; with {:g} % confidence in at most "
            "{:.1f} % ({:.0f} held-out {}s).",
            100 * empirical_of(*heldout), confidence, 100 * heldout->value, units_of(*heldout), record.unit);
    const BoundResult* const ahead = find(record.bounds, "heldout_lookahead");
    if (text.empty() && ahead != nullptr)
        text += fmt::format(
            "On training data that are still ahead the model is wrong in {:.1f} % of its answers; with {:g} "
            "% "
            "confidence in at most {:.1f} % ({:.0f} {}s).",
            100 * empirical_of(*ahead), confidence, 100 * ahead->value, units_of(*ahead), record.unit);
    if (const BoundResult* const bits = find(record.bounds, "heldout_bits"))
        text += fmt::format(" It needs {:.3f} bits an answer (smoothed), at most {:.3f}.",
                            empirical_of(*bits), bits->value);
    if (const BoundResult* const fresh = find(record.bounds, "prequential"))
        text += fmt::format(
            "{}On {:.0f} {}s met for the first time, until step {:.0f}, the models of those steps were wrong "
            "in at "
            "most {:.1f} % on average.",
            text.empty() ? "" : " ", units_of(*fresh), record.unit, number_of(fresh->details, "until_step"),
            100 * fresh->value);
    return text;
}

std::string gap_text(const EvalRecord& record, double delta) {
    if (!record.gap || !record.gap_low || !std::isfinite(*record.gap_low)) return "";
    const std::string size =
        fmt::format("{:.3f} nats [{:.3f}, {:.3f}] ({:g} %{})", *record.gap, *record.gap_low, *record.gap_high,
                    100 * (1 - delta), record.look ? " for all looks at once" : "");
    if (*record.gap_low > 0)
        return fmt::format(
            "The gap of {} to training data that it has seen is what it has fitted of those alone.", size);
    if (*record.gap_high < 0)
        return fmt::format("The gap of {} is negative: the held-out data are easier than the training data.",
                           size);
    return fmt::format("The gap of {} to training data that it has seen cannot be told from none.", size);
}

std::string vacuous_text(const EvalRecord& record) {
    std::vector<std::string> names;
    for (const auto& [name, bound] : record.bounds) {
        const Bound* const row = find_bound(name);
        const bool counts = row != nullptr && (row->kind == BoundKind::gap || row->kind == BoundKind::trend);
        if (counts && bound.vacuous && speaks_of_the_model(bound))
            names.push_back(fmt::format("{} {:.3g}", name, bound.value));
    }
    if (names.empty()) return "";
    return fmt::format(
        "Bounds that count all that routers and experts of this size could do say nothing here ({}, where no "
        "loss is above 1): there are too few independent {}s for them.",
        fmt::join(names, ", "), record.unit);
}

/// Of limits that are none of the run's looks.
std::string by_itself_text(const EvalRecord& record, double delta) {
    const bool limits = !record.gaps.empty() || find(record.bounds, "heldout") != nullptr ||
                        find(record.bounds, "heldout_lookahead") != nullptr;
    if (record.look || !limits) return "";
    return fmt::format(
        "This is none of the run's looks: each limit from data held out or ahead stands by itself, with {:g} "
        "% "
        "confidence, and not together with the run's or another evaluation's, nor for a checkpoint that was "
        "chosen by them.",
        100 * (1 - delta));
}

/// What is not said, and why; and what is said on an assumption.
std::string history_text(const EvalRecord& record, bool recorded) {
    if (!record.heldout_off.empty())
        return fmt::format("Nothing is said of new data: {}.", record.heldout_off);
    std::string text;
    const bool limits = std::any_of(record.bounds.begin(), record.bounds.end(),
                                    [](const auto& bound) { return is_certificate(bound.first); });
    if (!recorded && limits)
        text =
            "What these weights were trained on is not all on record: the limits assume that none of these "
            "data were among it.";
    if (!record.seen_off.empty())
        text += fmt::format("{}No gap is told, and nothing of training data that are ahead: {}.",
                            text.empty() ? "" : " ", record.seen_off);
    return text;
}

std::string line_part(const Bounds& bounds, const std::string& certificate, const std::string& source) {
    const BoundResult* const error = find(bounds, certificate);
    const BoundResult* const bits = find(bounds, certificate + "_bits");
    if (error == nullptr && bits == nullptr) return "";
    std::string text;
    if (error != nullptr)
        text += fmt::format("error at most {:.3f} ({:.3f}", error->value, empirical_of(*error));
    if (bits != nullptr)
        text += fmt::format("{}bits at most {:.3f} ({:.3f}", text.empty() ? "" : "), ", bits->value,
                            empirical_of(*bits));
    return text + fmt::format(" on {:.0f} {})", units_of(error != nullptr ? *error : *bits), source);
}

}  // namespace

std::string explain(const EvalRecord& record, double delta, bool recorded) {
    std::string text;
    for (const std::string& part :
         {certified(record, delta), history_text(record, recorded), by_itself_text(record, delta),
          gap_text(record, delta), vacuous_text(record)}) {
        if (!part.empty()) text += (text.empty() ? "" : " ") + part;
    }
    return text;
}

bool speaks_of_the_model(const BoundResult& bound) {
    return std::none_of(bound.assumptions.begin(), bound.assumptions.end(), [](const Assumption& one) {
        return one.name == "gate_covered" && one.status == AssumptionStatus::violated;
    });
}

bool is_certificate(std::string_view name) {
    for (const std::string_view certificate : {"heldout", "prequential", "heldout_lookahead"}) {
        if (name == certificate || name == std::string(certificate) + "_bits") return true;
    }
    return false;
}

std::string certificate_line(const Bounds& bounds, const std::string& unit) {
    std::string heldout = line_part(bounds, "heldout", "held-out " + unit + "s");
    if (heldout.empty())
        heldout = line_part(bounds, "heldout_lookahead", unit + "s that training will come to");
    const std::string fresh = line_part(bounds, "prequential", unit + "s met for the first time");
    if (heldout.empty() || fresh.empty()) return heldout + fresh;
    return heldout + "; " + fresh;
}

}  // namespace moesaic
