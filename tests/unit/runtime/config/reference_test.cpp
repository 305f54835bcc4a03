// The tables of configs/README.md are what the program itself says; MOESAIC_UPDATE_GOLDEN=1 rewrites them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "runtime/config/load.h"
#include "tests/support/source_folder.h"

namespace moesaic {
namespace {

const std::string kFile = std::string(MOESAIC_SOURCE_DIR) + "/configs/README.md";

std::string read_readme() {
    std::ostringstream text;
    text << std::ifstream(kFile).rdbuf();
    return text.str();
}

/// Compares what stands between "<!-- table: name -->" and "<!-- end -->" with `table`, or replaces it.
void expect_table(const std::string& name, const std::string& table) {
    const std::string begin = "<!-- table: " + name + " -->\n", end = "<!-- end -->";
    std::string text = read_readme();
    const std::size_t mark = text.find(begin);
    ASSERT_NE(mark, std::string::npos) << kFile << " has no " << begin;
    const std::size_t first = mark + begin.size(), last = text.find(end, first);
    ASSERT_NE(last, std::string::npos) << kFile << " has no " << end << " after " << begin;
    if (const char* update = std::getenv("MOESAIC_UPDATE_GOLDEN"); update && std::string(update) == "1") {
        text.replace(first, last - first, table);
        std::ofstream(kFile) << text;
        return;
    }
    EXPECT_EQ(text.substr(first, last - first), table)
        << "configs/README.md is behind; MOESAIC_UPDATE_GOLDEN=1 rewrites the table";
}

TEST(ConfigReference, ReadmeListsEveryKey) {
    expect_table("keys", config_reference());
}

TEST(ConfigReference, ReadmeSaysWhatThisVersionLacks) {
    expect_table("this version", version_limits());
}

}  // namespace
}  // namespace moesaic
