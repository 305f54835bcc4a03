// A study: a grid of runs over configuration keys, and what it claims to show.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/config/diagnostics.h"

namespace moesaic {

/// Keys that change together, and the values they take: one key of `grid`, or several of a `zip` entry.
struct StudyAxis {
    std::vector<std::string> keys;
    std::vector<std::vector<std::string>> points;  ///< each with one value per key, as YAML text
};

/// Nested keys are joined by points: `where: {experts: 4}` is "where.experts".
struct StudyClaim {
    std::string where;  ///< "file:line"
    std::string name, kind, statement;
    std::map<std::string, std::string> options;
};

struct StudyConfig {
    std::string file, name, out = "studies";
    std::string base;                ///< configuration of the runs; empty for simulations
    std::string simulation;          ///< what is simulated instead of trained; empty: runs
    std::string takes;               ///< how long it takes, for people
    long first_seed = 1, seeds = 1;  ///< first_seed, first_seed + 1, ...
    long ranks = 1;
    std::optional<long> jobs;            ///< at a time; empty: as the cores allow
    std::vector<std::string> overrides;  ///< "a.b=c", for every run
    std::vector<std::string> seed_keys;  ///< keys that take a run's seed besides run.seed
    std::vector<StudyAxis> axes;
    std::vector<std::map<std::string, std::string>> exclude;  ///< a point with all these values is left out
    std::vector<StudyClaim> claims;
};

/// Reads a study; with `smoke`, what its section `smoke` says replaces seeds, ranks, jobs and the grid, and
/// adds to `set`. Every mistake is in `diagnostics`, with file and line.
[[nodiscard]] StudyConfig load_study(const std::filesystem::path& file, bool smoke, Diagnostics& diagnostics);

/// A point of the grid: key to value, in the order of the axes.
using StudyPoint = std::vector<std::pair<std::string, std::string>>;
/// All points but the excluded ones, the last axis running fastest.
[[nodiscard]] std::vector<StudyPoint> points_of(const StudyConfig& study);

}  // namespace moesaic
