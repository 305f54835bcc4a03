// What ptxas says of every kernel that nvcc built, against runtime/cuda/kernel_budget.txt: registers, shared
// memory, and no spills. The one loss of speed that shows without a GPU.
#include <cxxabi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace cuda_host {
namespace {

namespace fs = std::filesystem;

struct Usage {
    int registers = 0, shared_bytes = 0, spilled_bytes = 0;
};

/// The functor that a kernel runs: "AttentionRow" of
/// "void moesaic::kernels::row_kernel<moesaic::kernels::AttentionRow<float> >(...)".
std::string functor_of(const std::string& symbol) {
    int status = 0;
    char* const text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
    const std::string name = status == 0 ? text : symbol;
    std::free(text);
    static const std::regex functor(R"(.*_kernel<moesaic::(?:kernels|hopper)::(\w+).*)");
    std::smatch found;
    return std::regex_match(name, found, functor) ? found[1].str() : name;
}

/// The most that any type and architecture takes, by functor.
std::map<std::string, Usage> usage_of(const fs::path& folder) {
    static const std::regex entry(R"re(.*Compiling entry function '(\w+)' for 'sm_\d+a?'.*)re");
    static const std::regex spills(R"(.* (\d+) bytes spill stores, (\d+) bytes spill loads.*)");
    static const std::regex used(R"(.*Used (\d+) registers.*)"), shared(R"(.* (\d+) bytes smem.*)");
    std::map<std::string, Usage> usage;
    for (const auto& file : fs::directory_iterator(folder)) {
        if (file.path().extension() != ".ptxas") continue;
        std::ifstream report(file.path());
        Usage* kernel = nullptr;
        for (std::string line; std::getline(report, line);) {
            std::smatch found;
            const auto number = [&](std::size_t group) { return std::stoi(found[group]); };
            if (std::regex_match(line, found, entry)) kernel = &usage[functor_of(found[1])];
            if (!kernel) continue;
            if (std::regex_match(line, found, spills))
                kernel->spilled_bytes = std::max(kernel->spilled_bytes, number(1) + number(2));
            if (std::regex_match(line, found, used))
                kernel->registers = std::max(kernel->registers, number(1));
            if (std::regex_match(line, found, shared))
                kernel->shared_bytes = std::max(kernel->shared_bytes, number(1));
        }
    }
    return usage;
}

/// Lines "functor registers shared_bytes"; "*" is for those that have none.
std::map<std::string, Usage> budget_of(const fs::path& path) {
    std::map<std::string, Usage> budget;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        Usage usage;
        if (line.empty() || line[0] == '#' || !(words >> name >> usage.registers >> usage.shared_bytes))
            continue;
        budget[name] = usage;
    }
    return budget;
}

TEST(KernelBudget, NoKernelTakesMore) {
    const fs::path reports = MOESAIC_KERNEL_REPORTS;
    if (!fs::exists(reports)) GTEST_SKIP() << "kernels were not built by nvcc";
    const std::map<std::string, Usage> usage = usage_of(reports), budget = budget_of(MOESAIC_KERNEL_BUDGET);
    ASSERT_TRUE(budget.contains("*"));
    for (const auto& [functor, used] : usage) {
        const Usage& most = budget.contains(functor) ? budget.at(functor) : budget.at("*");
        EXPECT_LE(used.registers, most.registers) << functor;
        EXPECT_LE(used.shared_bytes, most.shared_bytes) << functor;
        EXPECT_EQ(used.spilled_bytes, 0) << functor << " spills";
    }
    for (const auto& [functor, most] : budget)
        EXPECT_TRUE(functor == "*" || usage.contains(functor))
            << functor << " is in the budget and nowhere else";
    EXPECT_GT(usage.size(), 40u) << "the reports are no longer found";
}

}  // namespace
}  // namespace cuda_host
