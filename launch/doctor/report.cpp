// The diagnosis as text and as JSON.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "launch/doctor/advice.h"
#include "launch/doctor/doctor.h"
#include "runtime/base/build_info.h"
#include "runtime/machine/os_release.h"

namespace moesaic {

namespace {

constexpr std::size_t kWidth = 110;
constexpr std::size_t kIndent = 39;  // of what was found and of advice

/// `text` in lines of at most kWidth columns, all but the first indented.
std::string wrapped(const std::string& text) {
    std::string out;
    std::size_t column = kIndent;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find(' ', at + 1), text.size());
        if (column + end - at > kWidth && column > kIndent) {
            while (at < end && text[at] == ' ') ++at;
            out += "\n" + std::string(kIndent, ' ');
            column = kIndent;
        }
        out += text.substr(at, end - at);
        column += end - at;
        at = end;
    }
    return out;
}

std::string row_text(const Finding& row) {
    std::string text =
        fmt::format("  {:<26} {:<8}  {}\n", row.name, status_name(row.status), wrapped(row.found));
    if (!row.advice.empty()) text += fmt::format("{:{}}{}\n", "", kIndent, wrapped("-> " + row.advice));
    return text;
}

bool same_but_for_node(const Finding& left, const Finding& right) {
    return left.section == right.section && left.name == right.name && left.status == right.status &&
           left.found == right.found && left.advice == right.advice;
}

/// The rows of a node; of a later node those that the first one does not have.
std::string node_text(const Findings& all, const std::string& node, const std::string& first_node) {
    std::string text, section;
    int alike = 0;
    for (const Finding& row : all) {
        if (row.node != node) continue;
        const bool repeated = node != first_node && std::ranges::any_of(all, [&](const Finding& other) {
                                  return other.node == first_node && same_but_for_node(other, row);
                              });
        if (repeated) {
            ++alike;
            continue;
        }
        if (row.section != section) text += "\n" + row.section + "\n";
        section = row.section;
        text += row_text(row);
    }
    if (alike > 0) text += fmt::format("  {} more rows are those of {}\n", alike, first_node);
    return text;
}

std::string summary(const Findings& all) {
    int warnings = 0, failed = 0, missing = 0, optional = 0;
    std::set<std::string> packages;
    for (const Finding& row : all) {
        warnings += row.status == FindingStatus::warning;
        failed += row.status == FindingStatus::failed;
        missing += row.status == FindingStatus::missing && row.needed;
        optional += row.status == FindingStatus::missing && !row.needed;
        if (row.status == FindingStatus::missing && row.needed) packages.insert(row.packages);
    }
    std::string text = failed + missing == 0
                           ? "usable"
                           : fmt::format("NOT usable: {} failed, {} missing that is needed", failed, missing);
    text += fmt::format("; {} warning{}, {} missing that is optional\n", warnings, warnings == 1 ? "" : "s",
                        optional);
    for (const std::string& one : packages)
        text += "to install: " + install_command(read_os_release(""), one) + "\n";
    return text;
}

}  // namespace

std::string diagnosis_text(const Diagnosis& diagnosis) {
    std::vector<std::string> nodes;
    for (const Finding& row : diagnosis.findings) {
        if (!row.node.empty() && std::ranges::find(nodes, row.node) == nodes.end()) nodes.push_back(row.node);
    }
    std::string text =
        fmt::format("Moesaic {} doctor: {} rank{} on {} node{}\n", kVersion, diagnosis.ranks,
                    diagnosis.ranks == 1 ? "" : "s", diagnosis.nodes, diagnosis.nodes == 1 ? "" : "s");
    for (const std::string& node : nodes) {
        if (nodes.size() > 1) text += fmt::format("\n==== {}\n", node);
        text += node_text(diagnosis.findings, node, nodes.front());
    }
    if (nodes.size() > 1) text += "\n==== all nodes\n";
    text += hosts_text(diagnosis.hosts);
    text += node_text(diagnosis.findings, "", "");
    return text + "\n" + summary(diagnosis.findings);
}

std::string diagnosis_json(const Diagnosis& diagnosis) {
    using Json = nlohmann::ordered_json;
    Json object{{"ok", all_well(diagnosis.findings)},
                {"version", kVersion},
                {"commit", kCommit},
                {"ranks", diagnosis.ranks},
                {"nodes", diagnosis.nodes}};
    object["rows"] = Json::parse(findings_json(diagnosis.findings));
    object["hosts"] = object["links"] = Json::array();
    for (const HostFacts& host : diagnosis.hosts.hosts) {
        Json interfaces = Json::array();
        for (const NetworkInterface& one : host.interfaces)
            interfaces.push_back({{"name", one.name},
                                  {"address", fmt::format("{}/{}", one.address, one.prefix)},
                                  {"mtu", one.mtu}});
        object["hosts"].push_back({{"name", host.name},
                                   {"ranks", host.ranks},
                                   {"clock_seconds", host.clock_seconds},
                                   {"sees_folder", host.sees_folder},
                                   {"interfaces", interfaces}});
    }
    for (const HostLink& link : diagnosis.hosts.links)
        object["links"].push_back({{"from", diagnosis.hosts.hosts[static_cast<std::size_t>(link.from)].name},
                                   {"to", diagnosis.hosts.hosts[static_cast<std::size_t>(link.to)].name},
                                   {"bytes_per_second", link.bytes_per_second},
                                   {"latency_seconds", link.latency_seconds}});
    return object.dump();
}

}  // namespace moesaic
