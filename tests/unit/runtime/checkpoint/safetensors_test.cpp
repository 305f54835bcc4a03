// Safetensors files: round trips, a table of damaged files, and a disk that is full.
#include "runtime/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string file_of(std::string_view header, std::size_t data_bytes) {
    const u64 length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes + std::string(header) + std::string(data_bytes, '\1');
}

std::string message_of_opening(const std::string& path) {
    try {
        const SafetensorsFile file = SafetensorsFile::open(path);
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

std::string small_file(const std::string& path) {
    const std::vector<double> wide{1.5, -2.25, 1e300};
    const std::vector<float> narrow{1, 2, 3, 4, 5, 6};
    SafetensorsWriter writer(path, {{"format", "pt"}});
    writer.declare("narrow", DType::f32, Shape{2, 3});
    writer.declare("wide", DType::f64, Shape{3});
    writer.declare("empty", DType::bf16, Shape{0, 4});
    writer.declare_raw("half", "F16", {3});
    EXPECT_THAT(writer.order(), ElementsAre("wide", "narrow", "empty", "half"));
    writer.write("wide", view_of(wide.data(), {3}));
    writer.append("narrow", narrow.data(), 8);
    writer.append("narrow", narrow.data() + 2, 16);
    writer.append("half", "abcdef", 6);
    writer.finish();
    return read_text(path);
}

TEST(Safetensors, KeepsWhatWasWritten) {
    const ScratchFolder folder;
    const std::string path = folder / "a.safetensors";
    const std::string bytes = small_file(path);
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(file.entries().size(), 4u);
    EXPECT_EQ(file.bytes(), static_cast<i64>(bytes.size()));
    EXPECT_EQ(file.checksum(), checksum_of(bytes.data(), bytes.size()));
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ(file.find("absent"), nullptr);
    const ConstTensorView wide = file.at("wide").view();
    EXPECT_EQ(wide.as<double>()[2], 1e300);
    const ConstTensorView narrow = file.at("narrow").view();
    EXPECT_EQ(narrow.shape, (Shape{2, 3}));
    EXPECT_EQ(narrow.as<float>()[5], 6.0f);
    EXPECT_EQ(file.at("empty").view().shape, (Shape{0, 4}));
    EXPECT_EQ(file.at("half").dtype_name, "F16");
    EXPECT_FALSE(file.at("half").dtype.has_value());
    EXPECT_EQ(std::memcmp(file.at("half").data, "abcdef", 6), 0);
    EXPECT_THROW((void)file.at("half").view(), Error);
    EXPECT_THAT(bytes, HasSubstr("{\"__metadata__\":{\"format\":\"pt\"}"));
    for (const SafetensorsEntry& entry : file.entries()) EXPECT_TRUE(entry.aligned()) << entry.name;
}

TEST(Safetensors, ReportsTheChecksumOfTheWholeFile) {
    const ScratchFolder folder;
    SafetensorsWriter writer(folder / "a.safetensors");
    writer.declare("x", DType::int64, Shape{2});
    const std::vector<i64> values{7, -7};
    writer.write("x", view_of(values.data(), {2}));
    const SafetensorsWriter::Summary summary = writer.finish();
    const std::string bytes = read_text(folder / "a.safetensors");
    EXPECT_EQ(summary.bytes, static_cast<i64>(bytes.size()));
    EXPECT_EQ(summary.checksum, checksum_of(bytes.data(), bytes.size()));
    EXPECT_EQ(bytes.size() % 8, 0u);
}

TEST(Safetensors, SurvivesMoving) {
    const ScratchFolder folder;
    small_file(folder / "a.safetensors");
    SafetensorsFile file = SafetensorsFile::open(folder / "a.safetensors");
    const SafetensorsFile moved = std::move(file);
    EXPECT_EQ(moved.at("wide").view().as<double>()[0], 1.5);
}

TEST(Safetensors, AMissingFileIsTheUsersMistake) {
    const ScratchFolder folder;
    EXPECT_THROW((void)SafetensorsFile::open(folder / "none"), UserError);
    EXPECT_THROW((void)SafetensorsFile::open(folder.path()), UserError);
}

TEST(Safetensors, RefusesEveryTruncation) {
    const ScratchFolder folder;
    const std::string bytes = small_file(folder / "a.safetensors");
    const std::string path = folder / "cut.safetensors";
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        write_text(path, bytes.substr(0, length));
        EXPECT_THAT(message_of_opening(path), HasSubstr(path + ": damaged")) << "cut to " << length;
    }
}

TEST(Safetensors, SurvivesEveryFlippedBitOfTheHeader) {
    const ScratchFolder folder;
    const std::string bytes = small_file(folder / "a.safetensors");
    u64 length = 0;
    std::memcpy(&length, bytes.data(), 8);
    const std::string path = folder / "flipped.safetensors";
    int refused = 0;
    for (std::size_t bit = 0; bit < 8 * (8 + length); ++bit) {
        std::string damaged = bytes;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
        write_text(path, damaged);
        const std::string message = message_of_opening(path);
        if (message == "no error") continue;  // e.g. another letter in a name
        EXPECT_THAT(message, HasSubstr(path + ": damaged")) << "bit " << bit;
        ++refused;
    }
    EXPECT_GT(refused, 1000);
}

struct Damage {
    const char* header;
    const char* message;
};
// The data has 8 bytes in each case.
const Damage kDamages[] = {
    {"", "does not begin with '{'"},
    {"[]", "does not begin with '{'"},
    {"{", "not valid JSON"},
    {"{}", "8 bytes after the last tensor belong to none"},
    {"{}{}", "not valid JSON"},
    {R"({"a":1})", "\"a\" should be an object"},
    {R"({"a":null})", "should be an object, not null"},
    {R"({"a":[]})", "should be an object, not an array"},
    {R"({"a":{}})", "lacks one of"},
    {R"({"a":{"dtype":"F32","shape":[2]}})", "lacks one of"},
    {R"({"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}})", "dtype cannot be the number 4"},
    {R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", "unknown dtype \"F33\""},
    {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", "shape cannot be the number 2"},
    {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "shape cannot hold the number -2"},
    {R"({"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", "shape cannot hold the number 2.5"},
    {R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", "shape cannot hold a string"},
    {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", "shape cannot hold an array"},
    {R"({"a":{"dtype":"F32","shape":[{}],"data_offsets":[0,8]}})", "shape cannot hold an object"},
    {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", "impossible shape"},
    {R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})", "impossible shape"},
    {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", "shape cannot hold"},
    {R"({"a":{"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,8]}})", "shape cannot hold"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "has not two data_offsets"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", "more than two data_offsets"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "should lie at bytes 8 to 0"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", "data_offsets cannot hold the number -8"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", "which has 8 bytes"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", "which has 8 bytes"},
    {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "needs 12 bytes"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "4 bytes after the last tensor"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "gap of 4 bytes before tensor \"a\""},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
     "tensor \"b\" overlaps the tensor before it by 4 bytes"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}})",
     "\"a\" occurs twice"},
    {R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "has dtype twice"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":1}})", "unknown field \"extra\""},
    {R"({"__metadata__":7,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "__metadata__ should be"},
    {R"({"__metadata__":{"k":7},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
     "should be a string"},
    {R"({"__metadata__":{"k":"","k":""},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
     "\"k\" twice"},
    {"{\"a\xff\":{}}", "not valid JSON"},
};

TEST(Safetensors, NamesEachDamage) {
    const ScratchFolder folder;
    const std::string path = folder / "damaged.safetensors";
    for (const Damage& damage : kDamages) {
        write_text(path, file_of(damage.header, 8));
        EXPECT_THAT(message_of_opening(path), HasSubstr(damage.message)) << damage.header;
    }
}

TEST(Safetensors, RefusesHugeAndDeepHeadersCheaply) {
    const ScratchFolder folder;
    const std::string path = folder / "a.safetensors";
    write_text(path, std::string(8, '\xff') + "{}");
    EXPECT_THAT(message_of_opening(path), HasSubstr("header should have 18446744073709551615 bytes"));
    write_text(path, file_of("{\"a\":" + std::string(1'000'000, '['), 0));
    EXPECT_THAT(message_of_opening(path), HasSubstr("should be an object, not an array"));
    write_text(path, file_of("{\"" + std::string(1'000'000, 'x') + "\n\":1}", 0));
    EXPECT_LT(message_of_opening(path).size(), 400u);
    write_text(path, file_of(std::string_view("{}\0x", 4), 0));
    EXPECT_THAT(message_of_opening(path), HasSubstr("zero byte"));
    write_text(path, file_of("{}", 0));
    std::filesystem::resize_file(path, 200'000'000);  // sparse
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).write("\0\xe1\xf5\x08\0\0\0\0", 8);
    EXPECT_THAT(message_of_opening(path), HasSubstr("more than the 100000000"));
}

TEST(Safetensors, AFullDiskIsAnErrorAndLeavesNothing) {
    const ScratchFolder folder;
    const std::string path = folder / "a.safetensors";
    std::filesystem::create_symlink("/dev/full", path + ".partial");
    SafetensorsWriter writer(path);
    writer.declare("x", DType::f32, Shape{1});
    try {
        (void)writer.order();
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("a.safetensors: writing failed"));
        EXPECT_THAT(error.what(), HasSubstr("No space left on device"));
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_FALSE(std::filesystem::is_symlink(path + ".partial"));
}

TEST(Safetensors, AnUnfinishedWriterKeepsTheEarlierFile) {
    const ScratchFolder folder;
    const std::string path = folder / "a.safetensors";
    const std::string before = small_file(path);
    {
        SafetensorsWriter writer(path);
        writer.declare("x", DType::f32, Shape{100});
        const float value = 1;
        writer.append("x", &value, 4);
    }
    EXPECT_EQ(read_text(path), before);
    EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

}  // namespace
}  // namespace moesaic
