// Studies from YAML.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include "runtime/config/nearby_path.h"
#include "runtime/config/study_config.h"
#include "runtime/config/yaml_file.h"

namespace moesaic {

namespace {

constexpr int kMostRuns = 10'000;

/// Reads the sections of one study; mistakes go to `file`.
class StudyReader {
  public:
    StudyReader(StudyConfig& study, YamlFile& file) : study_(study), file_(file) {}

    void read(const YAML::Node& root, bool smoke) {
        if (!file_.check_keys(
                root, "",
                {"name", "out", "base", "simulation", "takes", "first_seed", "seeds", "seed_keys", "ranks",
                 "jobs", "set", "grid", "zip", "exclude", "claims", "smoke"}))
            return;
        text(root, "name", study_.name);
        text(root, "out", study_.out);
        text(root, "base", study_.base);
        study_.base = nearby_path(study_.base, study_.file);
        text(root, "simulation", study_.simulation);
        text(root, "takes", study_.takes);
        study_.first_seed = whole(root, "", "first_seed").value_or(study_.first_seed);
        read_seed_keys(root);
        read_size(root, "");
        if (root["claims"]) read_claims(root["claims"]);
        if (smoke && root["smoke"]) {
            const YAML::Node small = root["smoke"];
            if (file_.check_keys(small, "smoke", {"seeds", "ranks", "jobs", "set", "grid", "zip", "exclude"}))
                read_size(small, "smoke.");
        } else if (smoke) {
            file_.complain(root, "smoke", "is missing",
                           "say what is small enough for a try: {seeds: 1, grid: {...}}");
        }
        check_whole(root);
    }

  private:
    void text(const YAML::Node& root, const char* key, std::string& value) {
        const YAML::Node node = root[key];
        if (!node) return;
        if (node.IsScalar() && !node.Scalar().empty()) {
            value = node.Scalar();
        } else {
            file_.complain(node, key, "is not a text", "write one word or a quoted text");
        }
    }

    std::optional<long> whole(const YAML::Node& root, const std::string& section, const char* key) {
        const YAML::Node node = root[key];
        if (!node) return std::nullopt;
        const std::string words = yaml_text(node);
        long value = 0;
        const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), value);
        if (error == std::errc() && end == words.data() + words.size() && value >= 1 && value <= 100000)
            return value;
        file_.complain(node, section + key, fmt::format("'{}' is no count", words),
                       "a whole number from 1 on");
        return std::nullopt;
    }

    void read_seed_keys(const YAML::Node& root) {
        const YAML::Node keys = root["seed_keys"];
        if (!keys) return;
        if (!keys.IsSequence())
            file_.complain(keys, "seed_keys", "is not a list", "e.g. [task.data.split_seed]");
        if (keys.IsSequence())
            for (const YAML::Node& key : keys) study_.seed_keys.push_back(yaml_text(key));
    }

    /// What a smoke size may change.
    void read_size(const YAML::Node& root, const std::string& section) {
        study_.seeds = whole(root, section, "seeds").value_or(study_.seeds);
        study_.ranks = whole(root, section, "ranks").value_or(study_.ranks);
        if (root["jobs"] && yaml_text(root["jobs"]) != "auto") study_.jobs = whole(root, section, "jobs");
        if (const YAML::Node set = root["set"]) {
            if (!set.IsMap())
                file_.complain(set, section + "set", "is not a mapping", "e.g. {train.steps: 100}");
            if (set.IsMap())
                for (const auto& entry : set)
                    study_.overrides.push_back(yaml_text(entry.first) + "=" + yaml_text(entry.second));
        }
        if (root["grid"] || root["zip"]) {
            study_.axes.clear();
            study_.exclude.clear();
            keys_.clear();
        }
        if (root["grid"]) read_grid(root["grid"], section + "grid");
        if (root["zip"]) read_zip(root["zip"], section + "zip");
        if (root["exclude"]) read_exclude(root["exclude"], section + "exclude");
    }

    void read_grid(const YAML::Node& grid, const std::string& section) {
        if (!grid.IsMap()) {
            file_.complain(grid, section, "is not a mapping", "e.g. {model.moe.experts: [4, 8]}");
            return;
        }
        for (const auto& entry : grid) add_axis(section, {{entry.first, entry.second}});
    }

    void read_zip(const YAML::Node& zip, const std::string& section) {
        // One mapping, or a list of them.
        const auto add = [&](const YAML::Node& node) {
            if (!node.IsMap()) {
                file_.complain(
                    node, section, "is not a mapping",
                    "keys that change together: {model.moe.experts: [4, 8], model.moe.hidden: [64, 32]}");
                return;
            }
            std::vector<std::pair<YAML::Node, YAML::Node>> entries;
            for (const auto& entry : node) entries.emplace_back(entry.first, entry.second);
            add_axis(section, entries);
        };
        if (zip.IsSequence()) {
            for (const YAML::Node& node : zip) add(node);
        } else {
            add(zip);
        }
    }

    void add_axis(const std::string& section, const std::vector<std::pair<YAML::Node, YAML::Node>>& entries) {
        StudyAxis axis;
        for (const auto& [key, values] : entries) {
            const std::string name = yaml_text(key), full = section + "." + name;
            if (!values.IsSequence() || values.size() == 0) {
                file_.complain(key, full, "has no list of values", "e.g. [4, 8]");
                return;
            }
            if (!keys_.insert(name).second)
                file_.complain(key, full, "is varied twice", "keep one of the two");
            if (axis.keys.empty()) axis.points.resize(values.size());
            if (values.size() != axis.points.size()) {
                file_.complain(
                    key, full,
                    fmt::format("has {} values, and its partner {}", values.size(), axis.points.size()),
                    "zipped keys take equally many");
                return;
            }
            axis.keys.push_back(name);
            for (std::size_t i = 0; i < values.size(); ++i) axis.points[i].push_back(yaml_text(values[i]));
        }
        study_.axes.push_back(std::move(axis));
    }

    void read_exclude(const YAML::Node& list, const std::string& section) {
        study_.exclude.clear();
        if (!list.IsSequence()) {
            file_.complain(list, section, "is not a list",
                           "e.g. [{model.moe.experts: 2, model.moe.top_k: 4}]");
            return;
        }
        for (const YAML::Node& node : list) {
            std::map<std::string, std::string> values;
            if (!node.IsMap() || node.size() == 0) {
                file_.complain(node, section, "holds something that is no mapping",
                               "e.g. {model.moe.experts: 2}");
                continue;
            }
            for (const auto& entry : node) values[yaml_text(entry.first)] = yaml_text(entry.second);
            study_.exclude.push_back(std::move(values));
        }
    }

    void read_claims(const YAML::Node& list) {
        if (!list.IsSequence()) {
            file_.complain(list, "claims", "is not a list", "e.g. [{name: ..., kind: slope, ...}]");
            return;
        }
        for (const YAML::Node& node : list) {
            StudyClaim claim;
            claim.where = fmt::format("{}:{}", study_.file, node.Mark().line + 1);
            if (!node.IsMap()) {
                file_.complain(node, "claims", "holds something that is no mapping",
                               "e.g. {name: ..., kind: slope}");
                continue;
            }
            flatten(node, "", claim.options);
            for (const auto& [key, field] : {std::pair<const char*, std::string*>{"name", &claim.name},
                                             {"kind", &claim.kind},
                                             {"statement", &claim.statement}}) {
                if (const auto found = claim.options.find(key); found != claim.options.end()) {
                    *field = found->second;
                    claim.options.erase(found);
                } else {
                    file_.complain(node, fmt::format("claims.{}", key), "is missing", "every claim has one");
                }
            }
            study_.claims.push_back(std::move(claim));
        }
    }

    static void flatten(const YAML::Node& node, const std::string& prefix,
                        std::map<std::string, std::string>& options) {
        for (const auto& entry : node) {
            const std::string key = prefix + yaml_text(entry.first);
            if (entry.second.IsMap()) {
                flatten(entry.second, key + ".", options);
            } else {
                options[key] = yaml_text(entry.second);
            }
        }
    }

    void check_whole(const YAML::Node& root) {
        if (study_.name.empty() || study_.name.find('/') != std::string::npos)
            file_.complain(root, "name", "names no folder", "one word, which names the study's folder");
        if (study_.base.empty() == study_.simulation.empty())
            file_.complain(root, "base", "either base or simulation is needed",
                           "base: configs/tiny.yaml for runs; simulation: hash_router for draws");
        if (study_.axes.empty())
            file_.complain(root, "grid", "is missing", "e.g. {model.moe.experts: [4, 8]}");
        auto runs = static_cast<double>(study_.seeds);
        for (const StudyAxis& axis : study_.axes) runs *= static_cast<double>(axis.points.size());
        if (runs > kMostRuns)
            file_.complain(root, "grid", fmt::format("makes {:.4g} runs", runs),
                           fmt::format("at most {}: points of grid and zip, times seeds", kMostRuns));
        std::set<std::string> varied;
        for (const StudyAxis& axis : study_.axes) varied.insert(axis.keys.begin(), axis.keys.end());
        for (const auto& values : study_.exclude)
            for (const auto& [key, value] : values)
                if (!varied.contains(key))
                    file_.complain(root, "exclude." + key, "is not varied",
                                   "exclude names keys of grid and zip");
    }

    StudyConfig& study_;
    YamlFile& file_;
    std::set<std::string> keys_;
};

}  // namespace

StudyConfig load_study(const std::filesystem::path& file, bool smoke, Diagnostics& diagnostics) {
    StudyConfig study;
    study.file = file.string();
    YamlFile yaml(study.file, "a study", diagnostics);
    yaml.read("configs/studies/violation.yaml",
              [&](const YAML::Node& root) { StudyReader(study, yaml).read(root, smoke); });
    return study;
}

std::vector<StudyPoint> points_of(const StudyConfig& study) {
    std::vector<StudyPoint> points{{}};
    for (const StudyAxis& axis : study.axes) {
        std::vector<StudyPoint> longer;
        for (const StudyPoint& point : points) {
            for (const auto& values : axis.points) {
                longer.push_back(point);
                for (std::size_t i = 0; i < axis.keys.size(); ++i)
                    longer.back().emplace_back(axis.keys[i], values[i]);
            }
        }
        points = std::move(longer);
    }
    std::erase_if(points, [&](const StudyPoint& point) {
        return std::ranges::any_of(study.exclude, [&](const auto& excluded) {
            return std::ranges::all_of(excluded, [&](const auto& entry) {
                return std::ranges::find(point, std::pair<std::string, std::string>(entry)) != point.end();
            });
        });
    });
    return points;
}

}  // namespace moesaic
