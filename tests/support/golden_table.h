// Tables of documents that the program itself writes; MOESAIC_UPDATE_GOLDEN=1 rewrites them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/source_folder.h"

namespace moesaic {

/// Compares what stands between "<!-- table: name -->" and "<!-- end -->" in `file` with `table`, or replaces
/// it.
inline void expect_golden_table(const std::string& file, const std::string& name, const std::string& table) {
    const std::string path = std::string(MOESAIC_SOURCE_DIR) + "/" + file;
    const std::string begin = "<!-- table: " + name + " -->\n", end = "<!-- end -->";
    std::ostringstream read;
    read << std::ifstream(path).rdbuf();
    std::string text = read.str();
    const std::size_t mark = text.find(begin);
    ASSERT_NE(mark, std::string::npos) << path << " has no " << begin;
    const std::size_t first = mark + begin.size(), last = text.find(end, first);
    ASSERT_NE(last, std::string::npos) << path << " has no " << end << " after " << begin;
    if (const char* update = std::getenv("MOESAIC_UPDATE_GOLDEN"); update && std::string(update) == "1") {
        text.replace(first, last - first, table);
        std::ofstream(path) << text;
        return;
    }
    EXPECT_EQ(text.substr(first, last - first), table)
        << file << " is behind; MOESAIC_UPDATE_GOLDEN=1 rewrites the table";
}

}  // namespace moesaic
