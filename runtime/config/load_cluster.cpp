// Clusters from YAML, and the profiles of devices.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "runtime/base/gpu_data_sheets.h"
#include "runtime/config/cluster_config.h"
#include "runtime/config/yaml_file.h"

namespace moesaic {

namespace {

/// Keys of one mapping and where their numbers go.
struct NumberKey {
    const char* name;
    double* value;
};

class ClusterReader {
  public:
    ClusterReader(ClusterConfig& cluster, YamlFile& file) : cluster_(cluster), file_(file) {}

    void read(const YAML::Node& root) {
        if (!file_.check_keys(root, "", {"nodes", "ranks_per_node", "device", "node", "network"})) return;
        read_count(root, "nodes", cluster_.nodes);
        read_count(root, "ranks_per_node", cluster_.ranks_per_node);
        if (!root["device"])
            file_.complain(root, "device", "is missing", fmt::format("one of {}", profile_names()));
        else
            read_device(root["device"]);
        DeviceProfile& device = cluster_.device;
        read_link(root, "node", device.node);
        read_link(root, "network", device.network);
        if (cluster_.ranks() > kMostPlannedRanks)
            file_.complain(root, "nodes",
                           fmt::format("{} nodes of {} are {} ranks", cluster_.nodes, cluster_.ranks_per_node,
                                       cluster_.ranks()),
                           fmt::format("at most {} ranks are planned", kMostPlannedRanks));
    }

  private:
    static std::string profile_names() {
        std::vector<std::string> names;
        for (const DeviceProfile& profile : device_profiles()) names.push_back(profile.name);
        return fmt::format("{}", fmt::join(names, ", "));
    }

    void read_count(const YAML::Node& root, const char* key, i64& value) {
        const YAML::Node node = root[key];
        if (!node) return;
        const std::string words = node.IsScalar() ? node.Scalar() : "";
        const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), value);
        if (error == std::errc() && end == words.data() + words.size() && value >= 1 &&
            value <= kMostPlannedRanks)
            return;
        file_.complain(node, key, fmt::format("'{}' is no count", words),
                       fmt::format("a whole number from 1 to {}", kMostPlannedRanks));
        value = 1;
    }

    void read_numbers(const YAML::Node& section, const std::string& name,
                      const std::vector<NumberKey>& keys) {
        for (const NumberKey& key : keys) {
            const YAML::Node node = section[key.name];
            if (!node) continue;
            const std::string words = node.IsScalar() ? node.Scalar() : "", full = name + "." + key.name;
            const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), *key.value);
            if (error == std::errc() && end == words.data() + words.size() && *key.value > 0 &&
                *key.value <= 1e9) {
                cluster_.given.push_back(full);
                continue;
            }
            file_.complain(node, full, fmt::format("'{}' is no number above 0", words), "e.g. 450");
        }
    }

    void read_device(const YAML::Node& node) {
        const YAML::Node name = node.IsMap() ? node["profile"] : node;
        const std::string profile = name && name.IsScalar() ? name.Scalar() : "";
        const auto& all = device_profiles();
        const auto found = std::ranges::find(all, profile, &DeviceProfile::name);
        if (found == all.end()) {
            file_.complain(node, node.IsMap() ? "device.profile" : "device",
                           fmt::format("'{}' is no profile", profile),
                           fmt::format("one of {}; numbers beside it replace its own", profile_names()));
            return;
        }
        cluster_.device = *found;
        if (!node.IsMap()) return;
        if (!file_.check_keys(
                node, "device",
                {"profile", "bf16_tflops", "fp32_tflops", "fp64_tflops", "memory_gib", "memory_gb_per_s"}))
            return;
        DeviceProfile& device = cluster_.device;
        read_numbers(node, "device",
                     {{"bf16_tflops", &device.bf16_tflops},
                      {"fp32_tflops", &device.fp32_tflops},
                      {"fp64_tflops", &device.fp64_tflops},
                      {"memory_gib", &device.memory_gib},
                      {"memory_gb_per_s", &device.memory_gb_per_s}});
    }

    void read_link(const YAML::Node& root, const char* name, LinkProfile& link) {
        const YAML::Node node = root[name];
        if (!node || !file_.check_keys(node, name, {"latency_us", "gb_per_s"})) return;
        read_numbers(node, name, {{"latency_us", &link.latency_us}, {"gb_per_s", &link.gb_per_s}});
    }

    ClusterConfig& cluster_;
    YamlFile& file_;
};

DeviceProfile profile_of(const GpuPeaks& gpu) {
    constexpr double kNodeLatency = 5, kNetworkLatency = 12;  // of a message, us: assumed
    return {.name = std::string(gpu.profile),
            .bf16_tflops = 1e-12 * gpu.bf16_flops,
            .fp32_tflops = 1e-12 * gpu.fp32_flops,
            .fp64_tflops = 1e-12 * gpu.fp64_flops,
            .memory_gib = static_cast<double>(gpu.memory_capacity) / (1 << 30),
            .memory_gb_per_s = 1e-9 * gpu.memory_bytes,
            .node = {kNodeLatency, 1e-9 * gpu.nvlink_bytes},
            .network = {kNetworkLatency, 1e-9 * gpu.network_bytes},
            .source = "NVIDIA's data sheets, dense; a 400 Gb/s adapter for each GPU"};
}

}  // namespace

const std::vector<DeviceProfile>& device_profiles() {
    static const std::vector<DeviceProfile> kProfiles = [] {
        std::vector<DeviceProfile> all;
        for (const GpuPeaks& gpu : gpu_peaks()) all.push_back(profile_of(gpu));
        all.push_back({.name = "cpu",
                       .node = {1, 0},
                       .network = {50, 1.25},
                       .source = "measured on this machine; 10 Gb/s between machines",
                       .of_host = true});
        return all;
    }();
    return kProfiles;
}

bool ClusterConfig::gives(std::string_view key) const {
    return std::ranges::find(given, key) != given.end();
}

ClusterConfig load_cluster(const std::filesystem::path& file, Diagnostics& diagnostics) {
    ClusterConfig cluster;
    cluster.file = file.string();
    YamlFile yaml(cluster.file, "a cluster", diagnostics);
    yaml.read("launch/cluster/h100.yaml",
              [&](const YAML::Node& root) { ClusterReader(cluster, yaml).read(root); });
    return cluster;
}

}  // namespace moesaic
