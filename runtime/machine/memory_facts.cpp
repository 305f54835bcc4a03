#include "runtime/machine/memory_facts.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

std::optional<i64> leading_number(const std::string& text) {
    char* end = nullptr;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (end == text.c_str()) return std::nullopt;
    return static_cast<i64>(value);
}

template <class T>
void tighten(std::optional<T>& limit, T found) {
    limit = limit ? std::min(*limit, found) : found;
}

/// Calls `visit` for `group` and every group above it, as absolute folders below `hierarchy`.
template <class Visit>
void for_each_group_upwards(const std::string& hierarchy, std::string group, const Visit& visit) {
    while (true) {
        visit(hierarchy + (group == "/" ? "" : group) + "/");
        if (group.empty() || group == "/") return;
        group = group.substr(0, group.rfind('/'));
    }
}

void read_version_2(const std::string& root, const std::string& group, CgroupLimits& limits) {
    for_each_group_upwards("/sys/fs/cgroup", group, [&](const std::string& folder) {
        if (const auto cpu = read_text_file(root, folder + "cpu.max")) {  // "200000 100000" or "max 100000"
            const auto parts = split_text(*cpu, ' ');
            const auto quota = parts.empty() ? std::nullopt : leading_number(parts[0]);
            const auto period = parts.size() < 2 ? std::nullopt : leading_number(parts[1]);
            if (quota && period && *period > 0)
                tighten(limits.processors, static_cast<double>(*quota) / static_cast<double>(*period));
        }
        if (const auto memory = read_number_file(root, folder + "memory.max"))
            tighten(limits.memory_bytes, *memory);
    });
}

void read_version_1(const std::string& root, const std::string& controllers, const std::string& group,
                    CgroupLimits& limits) {
    const auto names = split_text(controllers, ',');
    const auto holds = [&](const char* name) { return std::ranges::find(names, name) != names.end(); };
    constexpr i64 kNoLimit = i64{1} << 60;  // version 1 writes a huge number instead of "max"
    if (holds("memory")) {
        for_each_group_upwards("/sys/fs/cgroup/memory", group, [&](const std::string& folder) {
            const auto memory = read_number_file(root, folder + "memory.limit_in_bytes");
            if (memory && *memory < kNoLimit) tighten(limits.memory_bytes, *memory);
        });
    }
    if (holds("cpu")) {
        for_each_group_upwards("/sys/fs/cgroup/" + controllers, group, [&](const std::string& folder) {
            const auto quota = read_number_file(root, folder + "cpu.cfs_quota_us");
            const auto period = read_number_file(root, folder + "cpu.cfs_period_us");
            if (quota && period && *quota > 0 && *period > 0)
                tighten(limits.processors, static_cast<double>(*quota) / static_cast<double>(*period));
        });
    }
}

/// By making a file: rights alone do not tell, least of all those of root.
bool can_write(const fs::path& folder) {
    std::string pattern = (folder / ".moesaic-doctor-XXXXXX").string();
    const int file = ::mkstemp(pattern.data());
    if (file < 0) return false;
    ::close(file);
    ::unlink(pattern.c_str());
    return true;
}

}  // namespace

MemoryFacts read_memory_facts(const std::string& root) {
    MemoryFacts facts;
    constexpr i64 kKibibyte = 1024;
    for (const std::string& line : lines_of(read_text_file(root, "/proc/meminfo").value_or(""))) {
        const auto colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::string key = line.substr(0, colon);
        const auto value = leading_number(line.substr(colon + 1));
        if (!value) continue;
        if (key == "MemTotal") facts.total = *value * kKibibyte;
        if (key == "MemAvailable") facts.available = *value * kKibibyte;
        if (key == "HugePages_Total") facts.huge_pages = *value;
        if (key == "HugePages_Free") facts.huge_pages_free = *value;
        if (key == "Hugepagesize") facts.huge_page_bytes = *value * kKibibyte;
    }
    // "always [madvise] never"
    const auto modes = read_text_file(root, "/sys/kernel/mm/transparent_hugepage/enabled").value_or("");
    const auto open = modes.find('['), close = modes.find(']');
    if (open != std::string::npos && close != std::string::npos && open < close)
        facts.transparent_huge_pages = modes.substr(open + 1, close - open - 1);
    return facts;
}

CgroupLimits read_cgroup_limits(const std::string& root) {
    CgroupLimits limits;
    for (const std::string& line : lines_of(read_text_file(root, "/proc/self/cgroup").value_or(""))) {
        // "0::/user.slice" is version 2, "4:memory:/docker/1f" version 1.
        const auto first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const std::string group = line.substr(second + 1);
        if (controllers.empty()) {
            read_version_2(root, group, limits);
        } else {
            read_version_1(root, controllers, group, limits);
        }
    }
    return limits;
}

std::optional<DiskSpace> disk_space(const std::string& path) {
    std::error_code error;
    fs::path folder = fs::absolute(path, error);
    while (!folder.empty() && !fs::is_directory(folder, error) && folder != folder.parent_path())
        folder = folder.parent_path();
    struct statvfs status {};
    if (folder.empty() || ::statvfs(folder.c_str(), &status) != 0) return std::nullopt;
    const auto block = static_cast<i64>(status.f_frsize);
    return DiskSpace{folder.string(), static_cast<i64>(status.f_blocks) * block,
                     static_cast<i64>(status.f_bavail) * block, can_write(folder)};
}

}  // namespace moesaic
