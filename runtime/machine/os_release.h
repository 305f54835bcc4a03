// Which Linux this is, by os-release(5): whose package manager advice has to name.
#pragma once

#include <string>

namespace moesaic {

struct OsRelease {
    enum class Family { debian, redhat, other } family = Family::other;
    std::string name;     ///< PRETTY_NAME, e.g. "Debian GNU/Linux 12 (bookworm)"; empty where unknown
    std::string id;       ///< "debian", "ubuntu", "rhel", "rocky", "fedora", ...
    std::string version;  ///< "12", "9.4"

    [[nodiscard]] int major() const;  ///< of the version; 0 where it has none
};

/// /etc/os-release, or /usr/lib/os-release, below `root` ("" is this machine).
[[nodiscard]] OsRelease read_os_release(const std::string& root);

}  // namespace moesaic
