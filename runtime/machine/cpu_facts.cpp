#include "runtime/machine/cpu_facts.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

/// "32K", "2048K", "16M" as the kernel writes cache sizes.
i64 parse_cache_size(const std::string& text) {
    i64 number = 0;
    const auto end = std::from_chars(text.data(), text.data() + text.size(), number).ptr;
    const char unit = end == text.data() + text.size() ? ' ' : *end;
    return number * (unit == 'K'   ? i64{1} << 10
                     : unit == 'M' ? i64{1} << 20
                     : unit == 'G' ? i64{1} << 30
                                   : 1);
}

void read_cpuinfo(const std::string& root, CpuFacts& facts) {
    const auto text = read_text_file(root, "/proc/cpuinfo");
    if (!text) return;
    for (const std::string& line : lines_of(*text)) {
        const auto colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::string key = trimmed(line.substr(0, colon)), value = trimmed(line.substr(colon + 1));
        if (key == "processor") ++facts.processors;
        // x86; some ARM and POWER kernels. The first processor speaks for all.
        if ((key == "model name" || key == "cpu" || key == "Processor") && facts.model.empty())
            facts.model = value;
        if ((key == "flags" || key == "Features") && facts.flags.empty())
            facts.flags = split_text(value, ' ');
    }
    std::ranges::sort(facts.flags);
}

void read_caches(const std::string& root, CpuFacts& facts) {
    for (int index = 0;; ++index) {
        const std::string folder = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/", index);
        const auto level = read_number_file(root, folder + "level");
        if (!level) return;
        CpuCache cache;
        cache.level = static_cast<int>(*level);
        cache.type = read_text_file(root, folder + "type").value_or("");
        cache.bytes = parse_cache_size(read_text_file(root, folder + "size").value_or("0"));
        const auto sharers = read_text_file(root, folder + "shared_cpu_list").value_or("0");
        cache.shared_by = std::max(1, static_cast<int>(parse_cpu_list(sharers).size()));
        if (cache.type != "Instruction" && cache.bytes > 0) facts.caches.push_back(std::move(cache));
    }
}

}  // namespace

bool CpuFacts::has(const std::string& flag) const {
    return std::ranges::binary_search(flags, flag);
}

CpuFacts read_cpu_facts(const std::string& root) {
    CpuFacts facts;
    read_cpuinfo(root, facts);
    read_caches(root, facts);
    if (const auto list = read_text_file(root, "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"))
        facts.threads_per_core = std::max(1, static_cast<int>(parse_cpu_list(*list).size()));
    if (const auto list = read_text_file(root, "/sys/devices/system/node/online"))
        facts.numa_nodes = std::max(1, static_cast<int>(parse_cpu_list(*list).size()));
    return facts;
}

i64 last_cache_share(const CpuFacts& facts) {
    i64 level = 0, share = 0;
    for (const CpuCache& cache : facts.caches) {
        if (cache.level < level) continue;
        level = cache.level;
        share = cache.bytes / cache.shared_by;
    }
    return share;
}

std::vector<int> parse_cpu_list(const std::string& text) {
    constexpr int kMost = 1 << 16;  // a damaged file must not fill the memory
    std::vector<int> processors;
    for (const std::string& part : split_text(text, ',')) {
        const char* const end = part.data() + part.size();
        int first = 0, last = 0;
        auto [at, error] = std::from_chars(part.data(), end, first);
        if (error != std::errc()) continue;
        last = first;
        if (at != end && *at == '-' && std::from_chars(at + 1, end, last).ec != std::errc()) continue;
        for (int one = std::max(0, first); one <= std::min(last, kMost); ++one) processors.push_back(one);
    }
    return processors;
}

std::string cpu_list_text(const std::vector<int>& processors) {
    std::string text;
    for (std::size_t first = 0; first < processors.size();) {
        std::size_t last = first;
        while (last + 1 < processors.size() && processors[last + 1] == processors[last] + 1) ++last;
        text += fmt::format("{}{}", text.empty() ? "" : ",", processors[first]);
        if (last > first) text += fmt::format("-{}", processors[last]);
        first = last + 1;
    }
    return text;
}

std::vector<int> usable_processors() {
    // More processors than a cpu_set_t holds are an error of the call: then ask with a larger set.
    for (int most = CPU_SETSIZE; most <= (1 << 16); most *= 2) {
        cpu_set_t* const set = CPU_ALLOC(most);
        const std::size_t bytes = CPU_ALLOC_SIZE(most);
        CPU_ZERO_S(bytes, set);
        std::vector<int> processors;
        if (sched_getaffinity(0, bytes, set) == 0) {
            for (int one = 0; one < most; ++one) {
                if (CPU_ISSET_S(static_cast<std::size_t>(one), bytes, set)) processors.push_back(one);
            }
        }
        CPU_FREE(set);
        if (!processors.empty()) return processors;
    }
    return {};
}

}  // namespace moesaic
