// What the kernel says about memory: how much, huge pages, and the limits of this process's control group.
#pragma once

#include <optional>
#include <string>

#include "runtime/base/types.h"

namespace moesaic {

/// Of /proc/meminfo, in bytes; what cannot be read stays empty.
struct MemoryFacts {
    std::optional<i64> total, available;
    std::optional<i64> huge_pages, huge_pages_free;  ///< pages, reserved ones
    std::optional<i64> huge_page_bytes;
    std::string transparent_huge_pages;  ///< "always", "madvise", "never"; empty where unknown
};
[[nodiscard]] MemoryFacts read_memory_facts(const std::string& root);

/// The tightest limits on the way from this process's control group to the root, versions 1 and 2.
struct CgroupLimits {
    std::optional<double> processors;  ///< CPU time per time
    std::optional<i64> memory_bytes;
};
[[nodiscard]] CgroupLimits read_cgroup_limits(const std::string& root);

/// Of the file system that holds `path`, or its nearest folder that exists; empty where there is none.
struct DiskSpace {
    std::string folder;  ///< which one was looked at
    i64 total = 0, available = 0;
    bool writable = false;
};
[[nodiscard]] std::optional<DiskSpace> disk_space(const std::string& path);

}  // namespace moesaic
