// What the kernel says about the processors: model, features, caches, NUMA, and which of them we may use.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

struct CpuCache {
    int level = 0;
    std::string type;  ///< "Data", "Instruction", "Unified"
    i64 bytes = 0;
    int shared_by = 1;  ///< logical processors
};

struct CpuFacts {
    std::string model;               ///< empty where /proc/cpuinfo does not say
    int processors = 0;              ///< logical, listed by /proc/cpuinfo
    std::vector<std::string> flags;  ///< sorted
    std::vector<CpuCache> caches;    ///< of processor 0, instructions' left out
    std::optional<int> threads_per_core, numa_nodes;

    [[nodiscard]] bool has(const std::string& flag) const;
};

/// Reads below `root` ("" is this machine); what cannot be read stays empty.
[[nodiscard]] CpuFacts read_cpu_facts(const std::string& root);

/// A processor's part of its cache of the highest level, shared evenly, in bytes; 0 where none is known.
[[nodiscard]] i64 last_cache_share(const CpuFacts& facts);

/// Processors of a list as the kernel writes it, "0-3,8"; what is no number counts nothing.
[[nodiscard]] std::vector<int> parse_cpu_list(const std::string& text);
/// And back: {0,1,2,3,8} is "0-3,8".
[[nodiscard]] std::string cpu_list_text(const std::vector<int>& processors);

/// Processors that this thread may run on, by affinity; empty where the system does not say.
[[nodiscard]] std::vector<int> usable_processors();

}  // namespace moesaic
