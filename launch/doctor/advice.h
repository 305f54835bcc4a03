// How to install what the doctor misses, in the words of this system's package manager.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/machine/os_release.h"

namespace moesaic {

struct InstallAdvice {
    std::string packages;  ///< as the package manager calls them; empty where there is none for it
    std::string text;      ///< the command, and what to know besides
};

/// `what` is one of installable(); anything else is a mistake of ours.
[[nodiscard]] InstallAdvice install_advice(const OsRelease& os, std::string_view what);

/// Everything there is advice for: the names of findings.
[[nodiscard]] std::vector<std::string> installable();

/// One command for several packages.
[[nodiscard]] std::string install_command(const OsRelease& os, const std::string& packages);

}  // namespace moesaic
