#include "launch/doctor/finding.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr std::array kStatusNames{"ok", "warning", "missing", "failed"};

Finding parse_finding(const OrderedJson& row) {
    Finding finding;
    const std::string status = row.at("status");
    const auto* const at = std::ranges::find(kStatusNames, status);
    if (at == kStatusNames.end()) throw Error("doctor: there is no status '" + status + "'");
    finding.status = static_cast<FindingStatus>(at - kStatusNames.begin());
    finding.section = row.at("section");
    finding.name = row.at("name");
    finding.found = row.at("found");
    finding.advice = row.at("advice");
    finding.needed = row.at("needed");
    finding.packages = row.at("packages");
    finding.unit = row.at("unit");
    finding.node = row.at("node");
    if (!row.at("value").is_null()) finding.value = row.at("value").get<double>();
    return finding;
}

}  // namespace

const char* status_name(FindingStatus status) {
    return kStatusNames[static_cast<std::size_t>(status)];
}

bool all_well(const Findings& findings) {
    return std::ranges::none_of(findings, [](const Finding& one) {
        return one.status == FindingStatus::failed || (one.status == FindingStatus::missing && one.needed);
    });
}

std::string findings_json(const Findings& findings) {
    OrderedJson rows = OrderedJson::array();
    for (const Finding& one : findings) {
        rows.push_back({{"node", one.node},
                        {"section", one.section},
                        {"name", one.name},
                        {"status", status_name(one.status)},
                        {"found", one.found},
                        {"advice", one.advice},
                        {"needed", one.needed},
                        {"packages", one.packages},
                        {"value", one.value ? OrderedJson(*one.value) : OrderedJson(nullptr)},
                        {"unit", one.unit}});
    }
    // Names of processors and paths may hold any bytes.
    return rows.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

Findings parse_findings(std::string_view json) {
    try {
        Findings findings;
        for (const OrderedJson& row : OrderedJson::parse(json)) findings.push_back(parse_finding(row));
        return findings;
    } catch (const OrderedJson::exception& error) {
        throw Error(fmt::format("doctor: what a rank reports cannot be read: {}", error.what()));
    }
}

}  // namespace moesaic
