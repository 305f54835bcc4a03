// The list of sources of a blend: reading, overriding one entry, printing, mistakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/config/load.h"

namespace moesaic {
namespace {

using Words = std::vector<std::string>;

LoadedConfig parse(const std::string& text, const Words& overrides = {}) {
    return parse_config(text, "c.yaml", overrides);
}

constexpr const char* kBlend =
    "task:\n"
    "  data:\n"
    "    sources:\n"
    "      - {path: books, weight: 2}\n"
    "      - path: code/*.bin\n"
    "        name: code\n"
    "        format: bin\n"
    "        token_type: uint32\n";

TEST(Sources, AreReadWithTheirDefaults) {
    const LoadedConfig loaded = parse(kBlend);
    EXPECT_EQ(loaded.diagnostics.text(), "");
    const std::vector<SourceConfig>& sources = loaded.config.task.data.sources;
    ASSERT_EQ(sources.size(), 2u);
    SourceConfig books, code;
    books.path = "books";
    books.weight = 2;
    code.path = "code/*.bin";
    code.name = "code";
    code.format = "bin";
    code.token_type = "uint32";
    EXPECT_TRUE(sources[0] == books);
    EXPECT_TRUE(sources[1] == code);
    EXPECT_EQ(loaded.where.at("task.data.sources.1.format"), "c.yaml:7");
}

TEST(Sources, ArePrintedInAFormThatReadsBack) {
    Config config = parse(kBlend).config;
    config.task.data.sources[0].name = "a, b: {c}";
    config.task.data.sources[0].weight = 1e-6;
    const LoadedConfig again = parse(to_yaml(config));
    EXPECT_EQ(again.diagnostics.text(), "") << to_yaml(config);
    EXPECT_TRUE(again.config == config) << to_yaml(config);
    EXPECT_EQ(flatten(config).count("task.data.path"), 0u) << "the path is another way";
    EXPECT_EQ(flatten(Config()).at("task.data.sources"), "[]");
}

TEST(Sources, OneEntryCanBeOverridden) {
    const LoadedConfig loaded =
        parse(kBlend, {"task.data.sources.0.weight=5", "task.data.sources.1={name: x}"});
    EXPECT_EQ(loaded.diagnostics.text(), "");
    EXPECT_EQ(loaded.config.task.data.sources[0].weight, 5);
    EXPECT_EQ(loaded.config.task.data.sources[0].path, "books");
    EXPECT_EQ(loaded.config.task.data.sources[1].name, "x");
    EXPECT_EQ(loaded.config.task.data.sources[1].path, "code/*.bin");
    const LoadedConfig whole = parse(kBlend, {"task.data.sources=[{path: a}]"});
    EXPECT_EQ(whole.diagnostics.text(), "");
    ASSERT_EQ(whole.config.task.data.sources.size(), 1u);
    EXPECT_EQ(whole.config.task.data.sources[0].path, "a");
    for (const char* text :
         {"task.data.sources.2.weight=1", "task.data.sources.-1.weight=1", "task.data.sources.x.weight=1"}) {
        EXPECT_THAT(parse(kBlend, {text}).diagnostics.text(),
                    testing::HasSubstr("is no entry of this list; 0 to 1"));
    }
    EXPECT_THAT(parse("", {"task.data.sources.0.weight=1"}).diagnostics.text(),
                testing::HasSubstr("the list is empty; set it as a whole"));
}

TEST(Sources, ExcludeAPathInTheSamePlace) {
    const std::string both = "task: {data: {path: a, sources: [{path: b}]}}";
    EXPECT_EQ(parse(both).diagnostics.text(),
              "c.yaml:1: task.data.sources: stands beside task.data.path; keep one of the two");
    const LoadedConfig path_wins = parse(kBlend, {"task.data.path=a"});
    EXPECT_EQ(path_wins.diagnostics.text(), "");
    EXPECT_TRUE(path_wins.config.task.data.sources.empty());
    const LoadedConfig sources_win = parse("task: {data: {path: a}}", {"task.data.sources=[{path: b}]"});
    EXPECT_EQ(sources_win.diagnostics.text(), "");
    EXPECT_EQ(sources_win.config.task.data.sources.size(), 1u);
}

TEST(Sources, AllMistakesComeWithTheirLines) {
    const LoadedConfig loaded = parse(
        "task:\n  data:\n    end_of_document: x\n    tokenizer: none\n    sources:\n      - {path: a/b.bin, "
        "wieght: 2}\n"
        "      - {weight: -1}\n      - {path: c/b.txt, format: idx}\n      - 7\n"
        "      - {path: d, end_of_document: y}\n");
    EXPECT_EQ(
        loaded.diagnostics.text(),
        "c.yaml:2: task.data.vocabulary: without a tokenizer nothing says how many ids there are; the number "
        "of "
        "ids, e.g. 50257\n"
        "c.yaml:3: task.data.end_of_document: 'x' is no token id; auto, none, or an id\n"
        "c.yaml:6: task.data.sources.0.wieght: is no key of this section; did you mean 'weight'?\n"
        "c.yaml:7: task.data.sources.1.weight: '-1' is out of range; between 0 and 1000000000000\n"
        "c.yaml:7: task.data.sources.1: has no path; path: FILE_OR_FOLDER\n"
        "c.yaml:8: task.data.sources.2.format: 'idx' is not in this version; it has auto, text, jsonl, bin, "
        "megatron, npy\n"
        "c.yaml:8: task.data.sources.2.name: 'b' is the name of another source too; give each source a name "
        "of "
        "its own: name: NAME\n"
        "c.yaml:9: task.data.sources.3: '7' is not a mapping; write `key: value` lines, indented below it\n"
        "c.yaml:9: task.data.sources.3: has no path; path: FILE_OR_FOLDER\n"
        "c.yaml:10: task.data.sources.4.end_of_document: 'y' is no token id; auto, none, or an id");
    EXPECT_EQ(
        parse("task: {data: {sources: a}}").diagnostics.text(),
        "c.yaml:1: task.data.sources: 'a' is not a list; a list of mappings, e.g. [{path: a.txt, weight: 2}, "
        "{path: b.txt}]");
    EXPECT_EQ(parse("task: {data: {sources: [{path: a, weight: 0}]}}").diagnostics.text(),
              "c.yaml:1: task.data.sources: no source has a weight above 0; e.g. weight: 1");
}

}  // namespace
}  // namespace moesaic
