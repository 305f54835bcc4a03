// How well kernels use the memory system, counted on the PTX that nvcc made of them: no line of the source
// touches more than twice the sectors, or takes more than twice the passes over the banks, that its bytes
// need, unless runtime/cuda/access_budget.txt lists it with a reason.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <regex>
#include <sstream>
#include <vector>

#include "tests/cuda_host/access_statistics.h"
#include "tests/cuda_host/every_kernel.h"
#include "tests/cuda_host/ptx_program.h"

namespace cuda_host {
namespace {

constexpr double kMostTimesTheLeast = 2.0;

/// What the PTX of sm_90 counts, by line.
std::map<std::string, AccessStatistics::Count> counted() {
    AccessStatistics statistics;
    reset({.translate = PtxProgram::of(90).translation(&statistics)});
    run_every_kernel();
    reset({});
    return statistics.counts();
}

struct Allowed {
    double most;
    std::string reason;
};
/// Lines "file ratio `text of the line` reason".
std::map<std::string, Allowed> allowed_lines() {
    std::map<std::string, Allowed> allowed;
    std::ifstream file(MOESAIC_ACCESS_BUDGET);
    EXPECT_TRUE(file) << MOESAIC_ACCESS_BUDGET;
    static const std::regex line_of_file(R"(([\w.]+) ([\d.]+) `(.*)` (.+))");
    for (std::string line; std::getline(file, line);) {
        std::smatch found;
        if (line.empty() || line[0] == '#') continue;
        EXPECT_TRUE(std::regex_match(line, found, line_of_file)) << "not of the form of this file: " << line;
        if (!found.empty()) allowed[found[1].str() + ": " + found[3].str()] = {std::stod(found[2]), found[4]};
    }
    return allowed;
}

/// "router.cu: balance_counts[i] = ...": the text of a line, which stays where numbers of lines move.
std::string text_of_line(const std::string& place) {
    const std::size_t colon = place.find(':');
    const std::string name = place.substr(0, colon);
    std::ifstream file(std::string(MOESAIC_KERNEL_FOLDER) + "/" + name);
    std::string line;
    for (int i = std::atoi(place.c_str() + colon + 1); i > 0; --i) std::getline(file, line);
    const std::size_t first = line.find_first_not_of(' ');
    return name + ": " + (first == std::string::npos ? "" : line.substr(first));
}

TEST(AccessStatistics, NoLineTakesMoreThanTwiceTheLeast) {
    if (!PtxProgram::is_there(90)) GTEST_SKIP() << "kernels were not built by nvcc";
    std::map<std::string, AccessStatistics::Count> by_text;
    for (const auto& [place, count] : counted()) {
        AccessStatistics::Count& sum = by_text[text_of_line(place)];
        sum.requests += count.requests;
        sum.pieces += count.pieces;
        sum.least += count.least;
    }
    EXPECT_GT(by_text.size(), 100u) << "accesses are no longer counted";
    const std::map<std::string, Allowed> allowed = allowed_lines();
    for (const auto& [text, count] : by_text) {
        const auto found = allowed.find(text);
        const double most = found == allowed.end() ? kMostTimesTheLeast : found->second.most;
        EXPECT_LE(count.ratio(), most) << text << "\n  " << count.pieces << " of " << count.least << ", in "
                                       << count.requests << " requests";
        if (found != allowed.end()) {
            EXPECT_GT(count.ratio(), kMostTimesTheLeast) << text << " needs no line in the list any more";
        }
    }
    for (const auto& [text, line] : allowed)
        EXPECT_TRUE(by_text.contains(text)) << text << " is in the list and nowhere else";
}

}  // namespace
}  // namespace cuda_host