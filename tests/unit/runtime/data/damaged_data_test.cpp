// Damaged and mistaken input of every format: an error that names the place and the remedy, never a crash.
#include <gtest/gtest.h>

#include <cstring>

#include "runtime/data/sampler.h"
#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/data/token_bytes.h"

namespace moesaic {
namespace {

using namespace testing_support;

struct Damage {
    const char* what;
    std::string bytes;
    const char* error;  ///< a part of the message, behind the file's name
};

std::string error_of(const std::string& path, i64 vocabulary, const char* format = "auto") {
    DatasetOptions options(path, 2, 0);
    options.vocabulary = vocabulary;
    options.sources.front().format = format;
    const auto tokenizer = make_tokenizer("bytes");
    return user_error_of([&] { const Dataset dataset(options, *tokenizer); });
}

void expect_errors(const std::string& name, const std::vector<Damage>& table, i64 vocabulary = 256) {
    for (const Damage& damage : table) {
        SCOPED_TRACE(damage.what);
        const TemporaryFolder folder;
        const std::string path = folder.write(name, damage.bytes);
        const std::string error = error_of(path, vocabulary);
        EXPECT_TRUE(error.starts_with(path)) << error;
        EXPECT_NE(error.find(damage.error), std::string::npos) << error;
        EXPECT_NE(error.find("; "), std::string::npos) << "no remedy: " << error;
    }
}

std::string with(std::string bytes, std::size_t at, const std::string& piece) {
    return bytes.replace(at, piece.size(), piece);
}

TEST(DamagedData, Bin) {
    expect_errors("a.bin",
                  {{"empty", "", ": the file is empty; name"},
                   {"odd", ids({1, 2, 3}, 2) + "x", ": byte 7: ends within an id; 7 bytes"},
                   {"one byte", "x", ": byte 1: ends within an id"},
                   {"no window", ids({1, 2}, 2), ": no file gives a training window"},
                   {"outside", ids({1, 2, 256, 3}, 2),
                    ": byte 4: token 2 has id 256, outside of the vocabulary of 256 (0 to 255); set"}});
}

TEST(DamagedData, Llmc) {
    const std::string good = llmc_file({1, 2, 3}, 2), wide = llmc_file({1, 2, 3}, 4);
    expect_errors(
        "a.bin",
        {{"magic alone", good.substr(0, 4), ": byte 4: ends within llm.c's header of 1024 bytes"},
         {"half a header", good.substr(0, 700), ": byte 700: ends within llm.c's header"},
         {"header alone", good.substr(0, 1024), "promises 3 ids of 2 bytes, 0 bytes follow"},
         {"cut", good.substr(0, good.size() - 1), "promises 3 ids of 2 bytes, 5 bytes follow"},
         {"longer", good + "xx", "promises 3 ids of 2 bytes, 8 bytes follow"},
         {"version", with(good, 4, little(2, 4)), ": byte 4: llm.c's magic 20240520 with version 2, where 1"},
         {"version of the other", with(wide, 4, little(1, 4)), "with version 1, where 7 is known"},
         {"count too large", with(good, 8, little(0x7FFFFFFF, 4)),
          ": byte 8: the header promises 2147483647"},
         {"negative count", with(good, 8, little(-3, 4)), ": byte 8: the header promises -3 ids"},
         {"outside", llmc_file({1, 2, 300}, 2), ": byte 1028: token 2 has id 300"},
         {"far outside", llmc_file({1, 2, 0xFFFFFFFF}, 4), ": byte 1032: token 2 has id 4294967295"}});
}

TEST(DamagedData, Npy) {
    const std::string data = ids({1, 2, 3, 4, 5, 6}, 2);
    const std::string good = npy_file(npy_dictionary("<u2", "(6,)"), data);
    const auto array = [&](const char* descr, const char* shape, const char* fortran = "False") {
        return npy_file(npy_dictionary(descr, shape, fortran), data);
    };
    expect_errors(
        "a.npy",
        {{"empty", "", ": the file is empty"},
         {"magic alone", good.substr(0, 6), ": byte 0: is no array of NumPy"},
         {"wrong magic", with(good, 0, "x"), ": byte 0: is no array of NumPy"},
         {"version", with(good, 6, little(4, 1)), ": byte 6: version 4 of the format"},
         {"half a header of version 2", npy_file("", "", 2).substr(0, 11),
          ": byte 11: ends within the header"},
         {"half a header", good.substr(0, 40), ": byte 8: a header of "},
         {"header too long", with(good, 8, little(0xFFFF, 2)),
          ": byte 8: a header of 65535 bytes passes the end"},
         {"header alone", good.substr(0, good.size() - data.size()), "promises more than the 0 elements"},
         {"cut", good.substr(0, good.size() - 1), "promises more than the 5 elements"},
         {"longer", good + "xx", "the array ends here, the file has"},
         {"no shape", npy_file("{'descr': '<u2', 'fortran_order': False, }\n", data),
          "the header has no 'shape'"},
         {"no descr", npy_file("{'shape': (6,)}\n", data), "the header has no 'descr'"},
         {"nothing", npy_file("", data), "the header has no 'descr'"},
         {"floats", array("<f4", "(3,)"), "elements of type '<f4' are no little-endian integers; convert"},
         {"big-endian", array(">u2", "(6,)"), "elements of type '>u2' are no little-endian integers"},
         {"no dimension", array("<u2", "()"), "an array of 0 dimensions"},
         {"three dimensions", array("<u2", "(1, 2, 3)"), "an array of 3 dimensions"},
         {"Fortran", array("<u2", "(2, 3)", "True"), "lies in Fortran's order; save numpy.ascontiguousarray"},
         {"negative extent", array("<u2", "(-6,)"), "the shape (-6,) is unreadable"},
         {"huge extent", array("<u2", "(99999999999999999999,)"), "is unreadable"},
         {"overflow", array("<u2", "(4611686018427387904, 4)"), "promises more than the 6 elements"},
         {"unclosed shape", npy_file("{'descr': '<u2', 'fortran_order': False, 'shape': (6,", data),
          "has no shape"},
         {"outside", npy_file(npy_dictionary("<i2", "(3,)"), ids({1, 2, -1}, 2)),
          "token 2 has id -1, outside"}});
}

void expect_pair_errors(const std::vector<Damage>& table, const std::string& bin) {
    for (const Damage& damage : table) {
        SCOPED_TRACE(damage.what);
        const TemporaryFolder folder;
        folder.write("a.bin", bin);
        folder.write("a.idx", damage.bytes);
        const std::string error = error_of(folder.path() + "/a", 256);
        EXPECT_TRUE(error.starts_with(folder.path() + "/a.")) << error;
        EXPECT_NE(error.find(damage.error), std::string::npos) << error;
        EXPECT_NE(error.find("; "), std::string::npos) << "no remedy: " << error;
    }
}

MegatronIndex spoilt(const std::function<void(MegatronIndex&)>& spoil) {
    MegatronIndex index = megatron_index({2, 3}, 2, 8);
    spoil(index);
    return index;
}

TEST(DamagedData, MegatronsHeader) {
    const std::string good = megatron_index({2, 3}, 2, 8).bytes();
    std::vector<Damage> table{
        {"empty", "", ".idx: byte 0: ends within the header of 34 bytes"},
        {"half a header", good.substr(0, 33), ".idx: byte 33: ends within the header"},
        {"header alone", good.substr(0, 34), ".idx: byte 18: 2 sequences take more than the 0 bytes"},
        {"magic", with(good, 0, "X"), ".idx: byte 0: is no index of Megatron"},
        {"version", with(good, 9, little(2, 8)), ".idx: byte 9: version 2, where 1 is known"},
        {"float64", with(good, 17, little(6, 1)),
         ".idx: byte 17: type 6 is none of Megatron's integer types"},
        {"type 0", with(good, 17, little(0, 1)), ".idx: byte 17: type 0 is none"},
        {"type 9", with(good, 17, little(9, 1)), ".idx: byte 17: type 9 is none"},
        {"sequences", with(good, 18, little(3, 8)), ".idx: byte 26: 3 limits of documents take more than"},
        {"many sequences", with(good, 18, little(i64{1} << 61, 8)),
         ".idx: byte 18: 2305843009213693952 sequences"},
        {"negative sequences", with(good, 18, little(-1, 8)),
         ".idx: byte 18: 18446744073709551615 sequences"},
        {"many limits", with(good, 26, little(i64{1} << 61, 8)), ".idx: byte 26: 2305843009213693952 limits"},
        {"no limits", with(good, 26, little(0, 8)), ".idx: byte 26: no limit of a document"},
        {"fewer limits", with(good, 26, little(2, 8)), "8 bytes too many"},
        {"longer", good + "x", "1 bytes too many"}};
    for (std::size_t size = 34; size < good.size(); size += 3)
        table.push_back({"cut", good.substr(0, size), "take more than the "});
    expect_pair_errors(table, ids({1, 2, 3, 4, 5}, 2));
}

TEST(DamagedData, MegatronsEntries) {
    const auto bytes = [](const std::function<void(MegatronIndex&)>& spoil) { return spoilt(spoil).bytes(); };
    expect_pair_errors(
        {{"negative length", bytes([](auto& i) { i.lengths[1] = -3; }),
          ".idx: byte 38: sequence 1 has length -3"},
         {"length beyond the end", bytes([](auto& i) { i.lengths[1] = 4; }),
          ".idx: byte 38: sequence 1 ends at byte 12 of "},
         {"largest length", bytes([](auto& i) { i.lengths[0] = 0x7FFFFFFF; }),
          "sequence 0 ends at byte 4294967294"},
         {"shorter than the .bin", bytes([](auto& i) { i.lengths[1] = 2; }),
          ".bin: byte 8: the sequences of "},
         {"overlap", bytes([](auto& i) { i.offsets[1] = 2; }),
          ".idx: byte 50: sequence 1 begins at byte 2 of the .bin"},
         {"gap", bytes([](auto& i) { i.offsets[1] = 6; }), "sequence 1 begins at byte 6"},
         {"unaligned", bytes([](auto& i) { i.offsets[1] = 5; }), "sequence 1 begins at byte 5"},
         {"negative offset", bytes([](auto& i) { i.offsets[0] = -2; }),
          ".idx: byte 42: sequence 0 begins at byte -2"},
         {"offset out of range", bytes([](auto& i) { i.offsets[1] = i64{1} << 62; }),
          "begins at byte 4611686018427387904"},
         {"first limit", bytes([](auto& i) { i.limits[0] = 1; }),
          ".idx: byte 58: document 0 begins with sequence 1"},
         {"limits fall", bytes([](auto& i) {
              i.limits = {0, 2, 1};
          }),
          "document 2 begins with sequence 1 of 2"},
         {"limit out of range", bytes([](auto& i) { i.limits[2] = 3; }),
          "document 2 begins with sequence 3 of 2"},
         {"negative limit", bytes([](auto& i) { i.limits[1] = -1; }), "document 1 begins with sequence -1"},
         {"last limit", bytes([](auto& i) {
              i.limits = {0, 1, 1};
          }),
          "the documents end with sequence 1 of 2"},
         {"wider type", bytes([](auto& i) { i.code = 4; }), ".idx: byte 50: sequence 1 begins at byte 4"}},
        ids({1, 2, 3, 4, 5}, 2));
    expect_pair_errors(
        {{"outside", megatron_index({2, 3}, 2, 8).bytes(), ".bin: byte 6: token 3 has id 256"},
         {"outside, signed", megatron_index({2, 3}, 2, 3).bytes(), ".bin: byte 6: token 3 has id 256"}},
        ids({1, 2, 3, 256, 5}, 2));
    expect_pair_errors(
        {{"negative id", megatron_index({1}, 4, 4).bytes(), ".bin: byte 0: token 0 has id -1"}},
        ids({-1}, 4));
}

TEST(DamagedData, MegatronPairsThatAreNone) {
    const TemporaryFolder folder;
    folder.write("a.idx", megatron_index({2}, 2, 8).bytes());
    EXPECT_NE(error_of(folder.path() + "/a.idx", 256).find("/a.bin: no such file; Megatron's data are pairs"),
              std::string::npos);
    folder.write("b.bin", ids({1, 2, 3}, 2));
    EXPECT_NE(error_of(folder.path() + "/b.bin", 256, "megatron").find("/b.idx: no such file"),
              std::string::npos);
    std::filesystem::create_directories(folder.path() + "/c.idx");
    folder.write("c.bin", "xx");
    EXPECT_NE(error_of(folder.path() + "/c", 256).find("/c.idx: is not a regular file"), std::string::npos);
}

TEST(DamagedData, Jsonl) {
    const std::string good = "{\"text\": \"abcdef\"}\n";
    expect_errors(
        "a.jsonl",
        {{"empty", "", ": the file is empty"},
         {"white space", " \n\n", ": no file gives a training window"},
         {"no JSON", good + "text\n", ":2: byte 2: is not JSON: syntax error"},
         {"cut", good + "{\"text\": \"abc", ":2: byte "},
         {"two objects", good + good.substr(0, good.size() - 1) + good, ":2: byte "},
         {"no object", "[1]\n", ":1: is no JSON object; write lines like {\"text\": "},
         {"a string", "\"text\"\n", ":1: is no JSON object"},
         {"a number", "5\n", ":1: is no JSON object"},
         {"missing key", good + "\n{\"body\": \"x\", \"id\": 1}\n",
          ":3: has no member 'text' (it has: body, id); set"},
         {"key deeper down", "{\"a\": {\"text\": \"x\"}}\n", ":1: has no member 'text' (it has: a)"},
         {"not a string", "{\"text\": 5}\n", ":1: member 'text' is a number, not a string"},
         {"a list", "{\"text\": [\"x\"]}\n", ":1: member 'text' is a list"},
         {"null", "{\"text\": null}\n", ":1: member 'text' is null"},
         {"an object", "{\"text\": {\"text\": \"x\"}}\n", ":1: member 'text' is an object"},
         {"invalid UTF-8", "{\"text\": \"a\xFF\"}\n", "invalid string: ill-formed UTF-8 byte"},
         {"half a surrogate", "{\"text\": \"\\ud800\"}\n", "surrogate"},
         {"NUL", std::string("{\"text\": \"a\0\"}\n", 15), "is not JSON"},
         {"deep and unclosed", "{\"text\": " + std::string(100000, '[') + "\n", ":1: byte "}});
    const TemporaryFolder folder;
    const std::string path = folder.write("a.jsonl", "");
    std::filesystem::resize_file(path, (std::size_t{256} << 20) + 1);  // a hole: no disk is used
    EXPECT_NE(
        error_of(path, 256).find(":1: a line of 268435457 bytes, where 268435456 are allowed; write one"),
        std::string::npos);
}

TEST(DamagedData, MistakesOfAllFilesComeTogether) {
    const TemporaryFolder folder;
    folder.write("a.bin", "x");
    folder.write("b.jsonl", "{}\n");
    folder.write("c.npy", "x");
    folder.write("d.txt", "a text that is long enough");
    const std::string error = error_of(folder.path(), 256);
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 2) << error;
    for (const char* part : {"a.bin: byte 1: ", "b.jsonl:1: has no", "c.npy: byte 0: "})
        EXPECT_NE(error.find(part), std::string::npos) << error;
    folder.write("many/x.bin", "x");
    for (int i = 0; i < 30; ++i) folder.write(fmt::format("many/{}.bin", i), "x");
    EXPECT_NE(error_of(folder.path() + "/many", 256).find("... and 11 more files"), std::string::npos);
}

TEST(DamagedData, ChoicesThatDoNotFit) {
    const TemporaryFolder folder;
    const std::string text = folder.write("a.txt", "some text");
    EXPECT_NE(error_of(text, 100).find("its tokenizer has 256 ids, task.data.vocabulary is 100; set"),
              std::string::npos);
    const auto none = make_tokenizer("none");
    DatasetOptions options(text, 2, 0);
    options.vocabulary = 100;
    const std::string error = user_error_of([&] { const Dataset dataset(options, *none); });
    EXPECT_NE(error.find("a.txt: text needs a tokenizer"), std::string::npos) << error;
    options.sources.front().end_of_document = "100";
    EXPECT_NE(
        user_error_of([&] { const Dataset dataset(options, *none); }).find("end_of_document 100 is outside"),
        std::string::npos);
    EXPECT_NE(user_error_of([&] { (void)none->encode("x"); }).find("task.data.tokenizer is none"),
              std::string::npos);
}

}  // namespace
}  // namespace moesaic
