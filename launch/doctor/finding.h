// One row of the doctor's table.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

enum class FindingStatus {
    ok,
    warning,  ///< works, but not as well or as surely as it could
    missing,  ///< is not there; whether that matters is Finding::needed
    failed,   ///< a run here would fail, or give numbers that cannot be trusted
};
[[nodiscard]] const char* status_name(FindingStatus status);

struct Finding {
    // Named initialisers leave some out: hence the braces, which say that this is meant.
    std::string section{}, name{};
    FindingStatus status = FindingStatus::ok;
    std::string found{};            ///< what is there, with units
    std::string advice{};           ///< what to do, empty for ok
    std::string packages{};         ///< what to install, as the package manager here calls it
    bool needed = false;            ///< a missing one fails the check
    std::optional<double> value{};  ///< of a measurement, in `unit`
    std::string unit{};
    std::string node{};  ///< host name; empty: the whole job
};
using Findings = std::vector<Finding>;

/// Nothing failed, and nothing is missing that is needed: exit code 0, otherwise 3.
[[nodiscard]] bool all_well(const Findings& findings);

/// A list of findings as JSON and back; throws Error where the text is none.
[[nodiscard]] std::string findings_json(const Findings& findings);
[[nodiscard]] Findings parse_findings(std::string_view json);

}  // namespace moesaic
