#include "launch/commands/run_bounds.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "runtime/base/error.h"
#include "runtime/base/json_depth.h"
#include "runtime/config/load.h"

namespace moesaic {

namespace {

using Json = nlohmann::ordered_json;  // terms keep their order

/// Numbers that are not finite are strings in records.
double number_of(const Json& value) {
    if (value.is_number()) return value.get<double>();
    if (value == "inf") return std::numeric_limits<double>::infinity();
    if (value == "-inf") return -std::numeric_limits<double>::infinity();
    return std::nan("");
}

BoundTerms terms_of(const Json& object) {
    BoundTerms terms;
    for (const auto& [name, value] : object.items()) terms.add(name, number_of(value));
    return terms;
}

AssumptionStatus status_of(const std::string& name) {
    for (const AssumptionStatus status : {AssumptionStatus::holds, AssumptionStatus::violated}) {
        if (name == name_of(status)) return status;
    }
    return AssumptionStatus::unknown;
}

BoundResult result_of(const Json& record) {
    BoundResult result;
    result.value = number_of(record.at("value"));
    result.terms = terms_of(record.at("terms"));
    result.vacuous = record.at("vacuous").get<bool>();
    if (record.contains("details")) result.details = terms_of(record.at("details"));
    for (const Json& one : record.at("assumptions"))
        result.assume(one.at("name").get<std::string>(), status_of(one.at("status").get<std::string>()),
                      one.at("meaning").get<std::string>());
    return result;
}

/// What is shown first: limits of the error, then of bits, the lowest first; then the others as the table has
/// them.
bool comes_before(const NamedBound& a, const NamedBound& b) {
    const auto key = [](const NamedBound& bound) {
        const bool limits = bound.kind == BoundKind::risk, bits = bound.name.ends_with("_bits");
        const Bound* const row = find_bound(bound.name);
        const auto place = row == nullptr ? std::ssize(bound_table()) : row - bound_table().data();
        const double value =
            std::isnan(bound.result.value) ? std::numeric_limits<double>::infinity() : bound.result.value;
        return std::tuple(!limits, limits && bits, limits ? value : 0.0, place);
    };
    return key(a) < key(b);
}

double delta_of(const Json& run_record) {
    LoadedConfig loaded =
        parse_config(run_record.at("config").get<std::string>(), "the run's config", {}, Purpose::inference);
    return loaded.config.generalization.delta;
}

RunBounds read_bounds_of(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw UserError(fmt::format("{}: there is no such file; give the folder of a run", path));
    RunBounds run;
    Json newest, computed_afterwards;
    for (std::string line; std::getline(file, line);) {
        if (json_depth(line) > kDeepestRecord) continue;
        const Json record = Json::parse(line, nullptr, false);
        if (!record.is_object() || !record.contains("event")) continue;
        if (record.at("event") == "run") run.delta = delta_of(record);
        if (record.at("event") == "eval") newest = record;
        if (record.at("event") == "bound") computed_afterwards = record;
    }
    if (newest.is_null() || !newest.contains("bounds") || newest.at("bounds").empty())
        throw UserError(fmt::format(
            "{}: no evaluation recorded a bound yet; they come with each evaluation of trained weights (train.eval_every)",
            path));
    run.step = newest.at("step").get<i64>();
    const auto add = [&run](const Json& record) {
        if (record.contains("meaning") && !record.at("meaning").empty())
            run.meaning += (run.meaning.empty() ? "" : " ") + record.at("meaning").get<std::string>();
        for (const auto& [name, bound] : record.at("bounds").items()) {
            const Bound* const row = find_bound(name);
            run.bounds.push_back({name, row == nullptr ? BoundKind::risk : row->kind, result_of(bound)});
        }
    };
    add(newest);
    if (!computed_afterwards.is_null() && computed_afterwards.at("step") == run.step)
        add(computed_afterwards);
    std::stable_sort(run.bounds.begin(), run.bounds.end(), comes_before);
    return run;
}

}  // namespace

RunBounds read_run_bounds(const std::string& run_folder) {
    const std::string path = run_folder + "/metrics.jsonl";
    try {
        return read_bounds_of(path);
    } catch (const Json::exception& error) {
        throw UserError(fmt::format(
            "{}: the record of the run or of its last evaluation is not what `moesaic train` writes "
            "({}); is the file damaged?",
            path, error.what()));
    }
}

}  // namespace moesaic
