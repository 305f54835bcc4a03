// Rows about the binary, and about what could build it again.
#include <fmt/format.h>

#include <cstdlib>

#include "launch/doctor/advice.h"
#include "launch/doctor/checks.h"
#include "runtime/base/build_flags.h"
#include "runtime/base/build_info.h"
#include "runtime/machine/programs.h"

namespace moesaic {

namespace {

constexpr double kProgramTimeout = 1;  // seconds

struct Tool {
    const char* name;  ///< of the finding
    std::vector<std::string> programs;
    double oldest;  ///< version that is enough; 0: any
};

Finding check_tool(const OsRelease& os, const std::string& path, const Tool& tool) {
    Finding row{.section = "tools", .name = tool.name};
    for (const std::string& program : tool.programs) {
        const auto file = find_program(program, path);
        if (!file) continue;
        const auto output = output_of({*file, "--version"}, kProgramTimeout);
        const std::string version = version_in(output.value_or(""));
        row.found = fmt::format("{} {}", *file, version.empty() ? "(does not tell its version)" : version);
        const auto point = version.find('.');
        const int major = std::atoi(version.c_str());
        const int minor = point == std::string::npos ? 0 : std::atoi(version.c_str() + point + 1);
        if (!version.empty() && major + minor / 100.0 < tool.oldest) {
            row.status = FindingStatus::warning;
            row.advice = fmt::format("building Moesaic wants {:.4g} or later", tool.oldest);
        }
        return row;
    }
    const InstallAdvice advice = install_advice(os, tool.name);
    row.status = FindingStatus::missing;
    row.found = "not on PATH";
    row.advice = advice.text;
    row.packages = advice.packages;
    return row;
}

}  // namespace

Findings check_build() {
    Findings rows;
    rows.push_back(
        {.section = "build", .name = "version", .found = fmt::format("{}, commit {}", kVersion, kCommit)});
    Finding compiler{.section = "build", .name = "compiler"};
    const std::string type = kBuildType;
    compiler.found =
        fmt::format("{}  {}  {}", kCompiler, type.empty() ? "no build type" : type, kCompilerFlags);
    if (type != "Release" && type != "RelWithDebInfo") {
        compiler.status = FindingStatus::warning;
        compiler.advice = "several times slower than a release build: cmake --preset release";
    }
    rows.push_back(compiler);
    Finding checks{.section = "build", .name = "checks", .found = "light assertions"};
    if (kHeavyAssertions || *kSanitizers) {
        checks.found = fmt::format("{} assertions{}{}", kHeavyAssertions ? "heavy" : "light",
                                   *kSanitizers ? ", sanitizers " : "", kSanitizers);
        checks.status = FindingStatus::warning;
        checks.advice = "for finding mistakes, not for speed: cmake --preset release";
    }
    rows.push_back(checks);
    rows.push_back(
        {.section = "build",
         .name = "parts",
         .found = fmt::format("MPI {}, CUDA Toolkit {}", kHaveMpi ? "yes" : "no", kHaveCuda ? "yes" : "no")});
    return rows;
}

Findings check_tools(const OsRelease& os, const std::string& path) {
    // Versions as major.minor with two digits: 3.20 is 3.2 here.
    const std::vector<Tool> tools{{"C++ compiler", {"g++", "c++"}, 11},
                                  {"Clang", {"clang++", "clang++-14"}, 14},
                                  {"CMake", {"cmake"}, 3.20},
                                  {"Ninja", {"ninja"}, 0},
                                  {"git", {"git"}, 0},
                                  {"gnuplot", {"gnuplot"}, 0}};
    Findings rows;
    for (const Tool& tool : tools) rows.push_back(check_tool(os, path, tool));
    return rows;
}

}  // namespace moesaic
