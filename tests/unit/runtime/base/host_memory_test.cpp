#include "runtime/base/host_memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

namespace moesaic {
namespace {

struct Free {
    void operator()(void* data) const { std::free(data); }
};
using Memory = std::unique_ptr<void, Free>;

/// The kernel's flags of the mapping that holds `data`.
std::string flags_of(const void* data) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    std::ifstream maps("/proc/self/smaps");
    bool here = false;
    for (std::string line; std::getline(maps, line);) {
        unsigned long begin = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
            here = begin <= address && address < end;
        if (here && line.starts_with("VmFlags:")) return line + " ";
    }
    return {};
}

TEST(HostMemory, IsAlignedAndLargeBlocksAskForHugePages) {
    constexpr i64 kHugePage = i64{2} << 20;
    for (const i64 bytes :
         {i64{0}, i64{1}, i64{1000}, kHugePage - 1, kHugePage, kHugePage + 1, 5 * kHugePage}) {
        const Memory memory(allocate_host_memory(bytes));
        ASSERT_TRUE(memory) << bytes;
        std::memset(memory.get(), 1, static_cast<std::size_t>(bytes));
        const auto address = reinterpret_cast<std::uintptr_t>(memory.get());
        EXPECT_EQ(address % static_cast<std::uintptr_t>(bytes >= kHugePage ? kHugePage : 64), 0U) << bytes;
        const std::string flags = flags_of(memory.get());
        if (bytes >= kHugePage && std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) {
            EXPECT_NE(flags.find(" hg "), std::string::npos) << bytes << ": " << flags;
        }
    }
    EXPECT_EQ(allocate_host_memory(i64{1} << 60), nullptr);
}

}  // namespace
}  // namespace moesaic
