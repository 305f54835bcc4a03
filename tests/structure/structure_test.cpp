// The rules of the tree: include directions, where third parties may appear, file lengths, feature switches.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace moesaic {
namespace {

namespace fs = std::filesystem;

struct SourceFile {
    std::string path;  // from the root
    std::vector<std::string> lines;
    [[nodiscard]] std::string floor() const { return path.substr(0, path.find('/')); }
};

const std::vector<SourceFile>& sources() {
    static const std::vector<SourceFile> all = [] {
        std::vector<SourceFile> files;
        const fs::path root = MOESAIC_SOURCE_DIR;
        for (const char* folder : {"runtime", "comm", "layers", "launch", "tests"}) {
            for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
                const std::string extension = entry.path().extension();
                if (extension != ".h" && extension != ".cpp") continue;
                SourceFile file{fs::relative(entry.path(), root), {}};
                std::ifstream stream(entry.path());
                for (std::string line; std::getline(stream, line);) file.lines.push_back(line);
                files.push_back(std::move(file));
            }
        }
        return files;
    }();
    return all;
}

template <class Check>
void for_each_include(const Check& check) {
    static const std::regex include(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"].*)");
    for (const SourceFile& file : sources()) {
        for (const std::string& line : file.lines) {
            std::smatch match;
            if (std::regex_match(line, match, include)) check(file, match[1].str());
        }
    }
}

TEST(Structure, FloorsIncludeOnlyDownwards) {
    const std::map<std::string, std::set<std::string>> allowed{
        {"runtime", {"runtime"}},
        {"comm", {"comm", "runtime"}},
        {"layers", {"layers", "comm", "runtime"}},
        {"launch", {"launch", "layers", "comm", "runtime"}},
    };
    const std::set<std::string> floors{"runtime", "comm", "layers", "launch", "tests"};
    int seen = 0;
    for_each_include([&](const SourceFile& file, const std::string& header) {
        const std::string target = header.substr(0, header.find('/'));
        if (file.floor() == "tests" || !floors.contains(target)) return;
        ++seen;
        EXPECT_TRUE(allowed.at(file.floor()).contains(target)) << file.path << " includes " << header;
    });
    EXPECT_GT(seen, 50) << "the check no longer finds the includes";
}

TEST(Structure, ThirdPartiesStayWhereTheyBelong) {
    const std::vector<std::pair<std::regex, std::regex>> rules{
        {std::regex("mpi\\.h"), std::regex("comm/mpi.*|tests/.*")},
        {std::regex("nccl\\.h|cuda.*\\.h"), std::regex("comm/nccl.*|runtime/cuda/.*")},
        {std::regex("yaml-cpp/.*"), std::regex("runtime/config/load.*\\.cpp|tests/.*")},
        {std::regex("nlohmann/.*"), std::regex("runtime/.*\\.cpp|launch/.*\\.cpp|tests/.*")},
        {std::regex("CLI/.*"), std::regex("launch/main\\.cpp")},
        {std::regex("hwy/.*"), std::regex("runtime/cpu/.*|tests/bench/.*")},
    };
    for_each_include([&](const SourceFile& file, const std::string& header) {
        for (const auto& [library, places] : rules) {
            if (std::regex_match(header, library)) {
                EXPECT_TRUE(std::regex_match(file.path, places)) << file.path << " includes " << header;
            }
        }
    });
}

TEST(Structure, NoFileOutgrowsItself) {
    for (const SourceFile& file : sources()) {
        EXPECT_LE(file.lines.size(), 400u) << file.path << ": a file this long wants to be split";
    }
}

TEST(Structure, FeatureSwitchesLiveInOnePlace) {
    const std::regex conditional(R"(^\s*#\s*(if|ifdef|ifndef|elif)\b.*)");
    const std::regex highway(R"(.*\b(HWY_\w+|MOESAIC_\w+_INL)\b.*)");  // what Highway's dispatch needs
    for (const SourceFile& file : sources()) {
        for (const std::string& line : file.lines) {
            if (!std::regex_match(line, conditional)) continue;
            const bool dispatch = file.path.starts_with("runtime/cpu/") && std::regex_match(line, highway);
            EXPECT_TRUE(dispatch) << file.path << ": " << line;
        }
    }
}

TEST(Structure, EveryFileSaysWhatItHolds) {
    for (const SourceFile& file : sources()) {
        if (!file.path.ends_with(".h")) continue;
        ASSERT_FALSE(file.lines.empty()) << file.path;
        EXPECT_TRUE(file.lines.front().starts_with("// ")) << file.path << ": the first line says what you will find";
    }
}

}  // namespace
}  // namespace moesaic
