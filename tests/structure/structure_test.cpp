// The rules of the tree: include directions, where third parties may appear, file lengths, feature switches.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/source_folder.h"

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
                if (extension != ".h" && extension != ".cpp" && extension != ".cu") continue;
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
        {std::regex("nccl\\.h|cuda[^/]*\\.h|cublas.*\\.h"),
         std::regex("comm/nccl.*|runtime/cuda/.*|tests/cuda_host/.*|tests/gpu/.*")},
        {std::regex("yaml-cpp/.*"), std::regex("runtime/config/(load.*\\.cpp|yaml_file\\.(h|cpp))|tests/.*")},
        {std::regex("nlohmann/.*"), std::regex("runtime/.*\\.cpp|launch/.*\\.cpp|tests/.*")},
        {std::regex("prometheus/.*"), std::regex("runtime/metrics/prometheus_sink\\.cpp")},
        {std::regex("pcre2\\.h"), std::regex("runtime/data/tokenizers/text_pattern\\.cpp")},
        {std::regex("utf8proc\\.h"), std::regex("runtime/data/tokenizers/nfc\\.cpp")},
        {std::regex("CLI/.*"), std::regex("launch/cli/.*|launch/main\\.cpp")},
        {std::regex("dnnl.*|oneapi/.*|omp\\.h"), std::regex("tests/bench/.*")},
        {std::regex("hwy/.*"), std::regex("runtime/cpu/.*|tests/bench/.*|tests/unit/runtime/cpu/.*")},
    };
    for_each_include([&](const SourceFile& file, const std::string& header) {
        for (const auto& [library, places] : rules) {
            if (std::regex_match(header, library)) {
                EXPECT_TRUE(std::regex_match(file.path, places)) << file.path << " includes " << header;
            }
        }
    });
}

/// Two types of one name in two headers are one type to the linker, which then mixes their functions.
TEST(Structure, NoTypeIsDefinedInTwoHeaders) {
    static const std::regex definition(R"(^(?:struct|class|union) (\w+)(?: final)?(?: :[^:].*)? \{.*)");
    std::map<std::string, std::string> header_of;
    for (const SourceFile& file : sources()) {
        if (file.floor() == "tests" || !file.path.ends_with(".h")) continue;
        for (const std::string& line : file.lines) {
            std::smatch found;
            if (!std::regex_match(line, found, definition)) continue;
            const auto [other, fresh] = header_of.emplace(found[1], file.path);
            EXPECT_TRUE(fresh || other->second == file.path)
                << found[1] << " is defined in " << other->second << " and in " << file.path;
        }
    }
    EXPECT_GT(header_of.size(), 100u) << "the check no longer finds the types";
}

TEST(Structure, NoFileOutgrowsItself) {
    for (const SourceFile& file : sources()) {
        EXPECT_LE(file.lines.size(), 400u) << file.path << ": a file this long wants to be split";
    }
}

/// The line as far as braces go: without preprocessor lines, comments, and the contents of literals.
std::string bare(const std::string& line) {
    static const std::regex noise(R"re(^\s*#.*|'(\\.|[^'\\])'|R"\(.*?\)"|"(\\.|[^"\\])*"|//.*)re");
    return std::regex_replace(line, noise, "");
}

/// Calls `check(first line, lines)` for every function. Knows no grammar, only braces: a block inside nothing
/// but namespaces and classes is a function if its head has parentheses. Braces in the list before a
/// constructor's body count as functions of their own.
template <class Check>
void for_each_function(const SourceFile& file, const Check& check) {
    static const std::regex scope(R"(.*\b(namespace|class|struct|union|enum)\b[^()]*)");
    struct Block {
        bool is_scope, is_function;
        std::size_t first;
    };
    std::vector<Block> open;
    Block closed{};
    std::string head;             // since the last brace or semicolon
    bool after_function = false;  // and whether that brace ended a function
    for (std::size_t line = 0; line < file.lines.size(); ++line) {
        for (const char c : bare(file.lines[line]) + ' ') {
            if (c != '{' && c != '}' && c != ';') {
                head += c;
                continue;
            }
            if (c == '{') {
                const bool outermost = open.empty() || open.back().is_scope;
                const bool is_scope = outermost && std::regex_match(head, scope);
                const auto text = head.find_first_not_of(' ');
                const bool goes_on = after_function && (text == std::string::npos || head[text] == ',');
                const bool has_list = head.find('(') != std::string::npos;
                open.push_back({is_scope, outermost && !is_scope && (goes_on || has_list), line});
            } else if (c == '}') {
                ASSERT_FALSE(open.empty()) << file.path << ":" << line + 1 << ": more braces close than open";
                closed = open.back();
                open.pop_back();
                if (closed.is_function) check(closed.first + 1, line + 1 - closed.first);
            }
            after_function = c == '}' && closed.is_function;
            head.clear();
        }
    }
    ASSERT_TRUE(open.empty()) << file.path << ": more braces open than close";
}

TEST(Structure, NoFunctionOutgrowsItself) {
    int seen = 0;
    for (const SourceFile& file : sources()) {
        for_each_function(file, [&](std::size_t first, std::size_t lines) {
            ++seen;
            EXPECT_LE(lines, 60u) << file.path << ":" << first << ": a function this long wants to be split";
        });
    }
    EXPECT_GT(seen, 500) << "the check no longer finds the functions";
}

TEST(Structure, FunctionsAreFoundByTheirBraces) {
    SourceFile file{"example", {}};
    file.lines = {"namespace n {",
                  "const std::vector<int> table{",
                  "    1,",
                  "};",
                  "struct S {",
                  "    explicit S(int x)",
                  "        : a(x), b{'{'} {",
                  "        if (x) {",
                  "        }",
                  "    }",
                  "};",
                  "TEST(A, B) { use(\"}\"); }  // }",
                  "}"};
    std::vector<std::pair<std::size_t, std::size_t>> found;
    for_each_function(file, [&](std::size_t first, std::size_t lines) { found.emplace_back(first, lines); });
    const std::vector<std::pair<std::size_t, std::size_t>> expected{{7, 1}, {7, 4}, {12, 1}};
    EXPECT_EQ(found, expected);
}

TEST(Structure, FeatureSwitchesLiveInOnePlace) {
    const std::regex conditional(R"(^\s*#\s*(if|ifdef|ifndef|elif)\b.*)");
    const std::regex highway(R"(.*\b(HWY_\w+|MOESAIC_\w+_INL_H_)\b.*)");  // what Highway's dispatch needs
    for (const SourceFile& file : sources()) {
        for (const std::string& line : file.lines) {
            if (!std::regex_match(line, conditional)) continue;
            const bool dispatch = file.path.starts_with("runtime/cpu/") && std::regex_match(line, highway);
            const bool portability = file.path == "runtime/cuda/gpu.h" && line == "#ifdef __CUDACC__";
            EXPECT_TRUE(dispatch || portability) << file.path << ": " << line;
        }
    }
}

/// `Suite.Name` in the table of tests/README.md is a test of the tree.
TEST(Structure, ReadmeNamesTestsThatExist) {
    std::set<std::string> tests;
    static const std::regex declared(R"(^TEST(?:_F|_P)?\((\w+), (\w+)\).*)"),
        named(R"(`([A-Z]\w*\.[A-Z]\w*)`)");
    std::smatch match;
    for (const SourceFile& file : sources()) {
        for (const std::string& line : file.lines) {
            if (line.starts_with("TEST") && std::regex_match(line, match, declared))
                tests.insert(match[1].str() + "." + match[2].str());
        }
    }
    std::ifstream readme(fs::path(MOESAIC_SOURCE_DIR) / "tests/README.md");
    int found = 0;
    for (std::string line; std::getline(readme, line);) {
        if (!line.starts_with('|')) continue;
        for (std::sregex_iterator name(line.begin(), line.end(), named), end; name != end; ++name, ++found)
            EXPECT_TRUE(tests.contains((*name)[1].str())) << (*name)[1].str();
    }
    EXPECT_GT(found, 20) << "the table was not read";
}

/// A shell's mistyped redirection once left a file "100" here.
TEST(Structure, NothingElseLiesAtTheTop) {
    const std::set<std::string> files{
        "CMakeLists.txt", "CMakePresets.json", "CMakeUserPresets.json", "LICENSE",
        "NOTICE",         "README.md",         "compile_commands.json"};
    for (const auto& entry : fs::directory_iterator(MOESAIC_SOURCE_DIR)) {
        const std::string name = entry.path().filename();
        if (entry.is_directory() || name.front() == '.') continue;
        EXPECT_TRUE(files.count(name) == 1) << name << " is no file that the repository's top level has";
    }
}

TEST(Structure, EveryFileSaysWhatItHolds) {
    for (const SourceFile& file : sources()) {
        if (!file.path.ends_with(".h")) continue;
        ASSERT_FALSE(file.lines.empty()) << file.path;
        EXPECT_TRUE(file.lines.front().starts_with("// "))
            << file.path << ": the first line says what you will find";
    }
}

}  // namespace
}  // namespace moesaic
