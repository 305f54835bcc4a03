#include "launch/report/run_history.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "runtime/base/error.h"
#include "runtime/base/json_depth.h"

namespace moesaic {

namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    return value.is_null() ? "" : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_at(const Json& record, const char* name) {
    const auto found = record.find(name);
    return found == record.end() ? "" : text_of(*found);
}

/// A value that is not finite is a text in metrics.jsonl.
std::optional<double> number_of(const Json& value) {
    if (value.is_number()) return value.get<double>();
    if (value == "nan") return std::nan("");
    if (value == "inf" || value == "-inf") return value == "inf" ? INFINITY : -INFINITY;
    return std::nullopt;
}

/// Reads one record after the other into a RunHistory.
class Reader {
  public:
    explicit Reader(RunHistory& history) : history_(history) {}

    /// False for what is no record.
    bool read(const std::string& line) {
        if (json_depth(line) > kDeepestRecord) return false;
        const Json record = Json::parse(line, nullptr, false);
        if (!record.is_object()) return false;
        const std::string event = text_at(record, "event");
        if (event == "run") {
            read_run(record);
        } else if (event == "end") {
            history_.status = text_at(record, "status");
            history_.seconds = number_of(record.value("seconds", Json(0))).value_or(0);
        } else {
            return read_at_step(event, record);
        }
        return true;
    }

    void finish() {
        for (auto& [name, series] : history_.series) in_order(series);
        for (auto& [layer, fields] : history_.layers)
            for (auto& [name, series] : fields) in_order(series);
        for (auto& [layer, loads] : history_.loads) {
            std::ranges::stable_sort(loads, {}, &LoadSnapshot::step);
            const auto same = [](const LoadSnapshot& left, const LoadSnapshot& right) {
                return left.step == right.step;
            };
            // Of equal steps the last one stays: unique keeps the first, so it goes from the end.
            const auto kept = std::unique(loads.rbegin(), loads.rend(), same);
            loads.erase(loads.begin(), kept.base());
        }
        for (const auto& [name, steps] : not_finite_)
            history_.notes.push_back(fmt::format("{} was not finite {} times, first in step {}", name,
                                                 steps.size(), *std::ranges::min_element(steps)));
    }

  private:
    void read_run(const Json& record) {
        history_.facts.clear();  // a resumed run says it again
        for (const auto& [name, value] : record.items()) {
            if (name == "config") {
                history_.config = text_of(value);
            } else if (name != "event") {
                history_.facts.emplace_back(name, text_of(value));
            }
        }
    }

    bool read_at_step(const std::string& event, const Json& record) {
        const auto found = record.find("step");
        if (found == record.end() || !found->is_number_integer()) return false;
        const i64 step = found->get<i64>();
        if (event == "experts") return read_experts(step, record);
        if (event == "alarm") {
            history_.alarms.push_back(
                {step, text_at(record, "kind"), text_at(record, "action"), text_at(record, "message")});
        } else if (event == "checkpoint") {
            ++history_.checkpoints;
        } else if (event == "bound") {
            add_bounds(step, record);
            if (const std::string meaning = text_at(record, "meaning"); !meaning.empty())
                history_.meaning += (history_.meaning.empty() ? "" : " ") + meaning;
        } else if (event == "eval" || event == "step") {
            read_numbers(event, step, record);
            if (event == "eval") {
                read_bounds(step, record);
                read_domains(step, record);
            }
            if (const std::string meaning = text_at(record, "meaning"); !meaning.empty())
                history_.meaning = meaning;
        }
        return true;  // events of later versions are skipped
    }

    void read_numbers(const std::string& prefix, i64 step, const Json& record) {
        for (const auto& [name, value] : record.items()) {
            if (name == "step" || name == "bounds") continue;
            if (value.is_object()) {
                read_numbers(prefix + "." + name, step, value);
            } else if (const auto number = number_of(value)) {
                const std::string full = prefix + "." + name;
                add(history_.series[full], full, step, *number);
            }
        }
    }

    bool read_experts(i64 step, const Json& record) {
        const auto found = record.find("layer");
        if (found == record.end() || !found->is_number_integer()) return false;
        const i64 layer = found->get<i64>();
        for (const auto& [name, value] : record.items()) {
            if (name == "step" || name == "layer") continue;
            if (const auto number = number_of(value))
                add(history_.layers[layer][name], fmt::format("experts.{} of layer {}", name, layer), step,
                    *number);
        }
        const auto load = record.find("load");
        if (load == record.end() || !load->is_array()) return true;
        LoadSnapshot snapshot{step, {}};
        for (const Json& tokens : *load) snapshot.load.push_back(number_of(tokens).value_or(0));
        if (!snapshot.load.empty()) history_.loads[layer].push_back(std::move(snapshot));
        return true;
    }

    void read_bounds(i64 step, const Json& record) {
        const auto bounds = record.find("bounds");
        if (bounds == record.end() || !bounds->is_object() || bounds->empty()) return;
        history_.bounds.clear();
        history_.bounds_step = step;
        add_bounds(step, record);
    }

    /// One more of the same name takes the place of what was there.
    void add_bounds(i64 step, const Json& record) {
        const auto bounds = record.find("bounds");
        if (bounds == record.end() || !bounds->is_object()) return;
        for (const auto& [name, value] : bounds->items()) {
            if (!value.is_object()) continue;
            RecordedBound bound{.name = name, .terms = {}, .open_assumptions = {}};
            bound.value = number_of(value.value("value", Json())).value_or(std::nan(""));
            bound.vacuous = value.value("vacuous", Json(false)) == true;
            const Json terms = value.value("terms", Json::object());
            const Json assumptions = value.value("assumptions", Json::array());
            for (const auto& [term, number] : terms.items())
                if (const auto found = number_of(number)) bound.terms.emplace_back(term, *found);
            for (const Json& assumption : assumptions) {
                const std::string status = text_at(assumption, "status");
                if (status == "violated") bound.violated = true;
                if (status != "holds")
                    bound.open_assumptions.push_back(text_at(assumption, "name") + ": " + status);
            }
            add(history_.series["bound." + name], "bound " + name, step, bound.value);
            std::erase_if(history_.bounds, [&](const RecordedBound& one) { return one.name == bound.name; });
            history_.bounds.push_back(std::move(bound));
        }
    }

    void read_domains(i64 step, const Json& record) {
        const auto layers = record.find("domain_experts");
        if (layers == record.end() || !layers->is_array() || layers->empty()) return;
        history_.domains.clear();
        for (const Json& layer : *layers) {
            if (!layer.is_object()) continue;
            RecordedDomains domains;
            const Json number = layer.value("layer", Json(0));
            if (!number.is_number_integer()) continue;
            domains.layer = number.get<i64>();
            domains.information = number_of(layer.value("mutual_information", Json(0))).value_or(0);
            domains.p_value = number_of(layer.value("p_value", Json(1))).value_or(1);
            const Json shares = layer.value("share", Json::object());
            if (!shares.is_object()) continue;
            for (const auto& [name, experts] : shares.items()) {
                domains.names.push_back(name);
                std::vector<double>& row = domains.share.emplace_back();
                for (const Json& share : experts) row.push_back(number_of(share).value_or(0));
            }
            const std::string name = fmt::format("eval.mutual_information.layer {}", domains.layer);
            add(history_.series[name], name, step, domains.information);
            if (!domains.share.empty() && !domains.share.front().empty())
                history_.domains.push_back(std::move(domains));
        }
    }

    void add(Series& series, const std::string& name, i64 step, double value) {
        if (!std::isfinite(value)) {
            not_finite_[name].push_back(step);
            return;
        }
        series.step.push_back(static_cast<double>(step));
        series.value.push_back(value);
    }

    /// Ascending; of a step recorded twice the later record stands.
    static void in_order(Series& series) {
        std::map<double, double> values;
        for (std::size_t i = 0; i < series.step.size(); ++i) values[series.step[i]] = series.value[i];
        series = {};
        for (const auto& [step, value] : values) {
            series.step.push_back(step);
            series.value.push_back(value);
        }
    }

    RunHistory& history_;
    std::map<std::string, std::vector<i64>> not_finite_;
};

std::string whole_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

bool RunHistory::has(std::string_view name) const {
    constexpr std::string_view kExperts = "experts.";
    if (!name.starts_with(kExperts)) return !at(std::string(name)).step.empty();
    const std::string field(name.substr(kExperts.size()));
    if (field == "load") return !loads.empty();
    return std::ranges::any_of(layers, [&](const auto& layer) {
        const auto found = layer.second.find(field);
        return found != layer.second.end() && !found->second.step.empty();
    });
}

const Series& RunHistory::at(const std::string& name) const {
    static const Series none;
    const auto found = series.find(name);
    return found == series.end() ? none : found->second;
}

std::string RunHistory::fact(std::string_view name) const {
    for (const auto& [key, value] : facts)
        if (key == name) return value;
    return "";
}

RunHistory read_run(const std::string& folder) {
    RunHistory history;
    history.folder = folder;
    const std::string path = folder + "/metrics.jsonl";
    std::ifstream file(path);
    if (!file || std::filesystem::is_directory(path))
        throw UserError(
            fmt::format("{}: no run folder: it has no metrics.jsonl; give the folder that "
                        "`moesaic train` wrote, e.g. runs/quad",
                        folder));
    Reader reader(history);
    i64 records = 0, unreadable = 0;
    for (std::string line; std::getline(file, line);) {
        if (line.empty()) continue;
        ++records;
        if (!reader.read(line)) ++unreadable;
    }
    reader.finish();
    if (records == 0) history.notes.emplace_back("metrics.jsonl is empty");
    if (unreadable > 0)
        history.notes.push_back(fmt::format(
            "{} of {} lines of metrics.jsonl are no records and were left out", unreadable, records));
    if (history.facts.empty()) history.notes.emplace_back("metrics.jsonl has no record of the run itself");
    const std::string config = whole_file(folder + "/config.yaml");
    if (!config.empty()) {
        history.config = config;
    } else if (!history.config.empty()) {
        history.notes.emplace_back("config.yaml is missing; the configuration is that of metrics.jsonl");
    } else {
        history.notes.emplace_back("there is no configuration");
    }
    return history;
}

}  // namespace moesaic
