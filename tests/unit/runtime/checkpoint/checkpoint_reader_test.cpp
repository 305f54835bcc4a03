// Reading tensors back, and refusing checkpoints that are incomplete, damaged or of another model.
#include "runtime/checkpoint/checkpoint_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <bit>
#include <filesystem>
#include <functional>

#include "runtime/checkpoint/convert_elements.h"
#include "tests/unit/runtime/checkpoint/small_checkpoint.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

template <class Exception>
std::string message_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Exception& error) {
        return error.what();
    }
    return "no error";
}

std::string message_of_reading(const std::string& folder) {
    return message_of<Error>([&] { CheckpointReader reader(folder); });
}

TEST(Checkpoint, ReadsBackEveryTensor) {
    const ScratchFolder run;
    CheckpointReader reader(write_small_checkpoint(run.path(), 100));
    EXPECT_EQ(reader.manifest().step, 100);
    EXPECT_EQ(reader.manifest(), read_manifest(reader.folder()));
    EXPECT_EQ(reader.manifest().config, "run: {name: \"small\"}\n");
    EXPECT_EQ(reader.manifest().tensors.size(), 3u);
    std::vector<float> values(6);
    reader.read("a.first_moment", view_of(values.data(), {2, 3}));
    EXPECT_EQ(values, (std::vector<float>{7, 8, 9, 10, 11, 12}));
    reader.read_elements("b", 4, view_of(values.data(), {2}));
    EXPECT_EQ(values[0], 15.0f);
    EXPECT_EQ(values[1], 16.0f);
    EXPECT_EQ(values[2], 9.0f);
}

TEST(Checkpoint, ConvertsOnlyWhenAsked) {
    const ScratchFolder run;
    CheckpointReader reader(write_small_checkpoint(run.path(), 100));
    std::vector<double> values(6);
    const TensorView wide = view_of(values.data(), {2, 3});
    EXPECT_THAT(message_of<UserError>([&] { reader.read("a", wide); }),
                AllOf(HasSubstr("tensor a holds f32, f64 is wanted"), HasSubstr("precision")));
    reader.read("a", wide, Conversion::floating);
    EXPECT_EQ(values[5], 6.0);
    std::vector<i32> whole(6);
    EXPECT_THROW(reader.read("a", view_of(whole.data(), {2, 3}), Conversion::floating), UserError);
}

TEST(Checkpoint, ConversionRoundsOnceToNearestEven) {
    const double tie = 1.0 + 1.0 / 256;  // half-way between two bf16 values, the lower one even
    const std::vector<double> values{tie, tie + 1e-12, tie - 1e-12, -tie - 1e-12, 1.0 + 3.0 / 256, 1e300};
    std::vector<BFloat16> narrow(values.size());
    convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::f64,
                     view_of(narrow.data(), {static_cast<i64>(narrow.size())}));
    const std::vector<std::uint16_t> expected{0x3f80, 0x3f81, 0x3f80, 0xbf81, 0x3f82, 0x7f80};
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(narrow[i].bits, expected[i]) << i;
}

TEST(Checkpoint, NamesWhatDoesNotFitTheModel) {
    const ScratchFolder run;
    CheckpointReader reader(write_small_checkpoint(run.path(), 100));
    std::vector<float> values(6);
    EXPECT_THAT(message_of<UserError>([&] { reader.read("c", view_of(values.data(), {6})); }),
                HasSubstr("holds no tensor \"c\""));
    EXPECT_THAT(message_of<UserError>([&] {
                    reader.read("a", view_of(values.data(), {3, 2}));
                }),
                HasSubstr("tensor a has shape [2,3], the model needs [3,2]"));
    EXPECT_THROW(reader.read_elements("a", 5, view_of(values.data(), {2})), UserError);
    EXPECT_THROW(reader.read_elements("a", -1, view_of(values.data(), {2})), UserError);
    EXPECT_NO_THROW(reader.require_exactly({"a", "b"})) << "moments belong to what they are of";
    EXPECT_THAT(
        message_of<UserError>([&] {
            reader.require_exactly({"a", "c", "d"});
        }),
        HasSubstr("is of another model:\nit lacks 2 tensors:\n  \"c\"\n  \"d\"\nthis one has no place "
                  "for 1 tensor:\n  \"b\""));
    EXPECT_THAT(message_of<UserError>([&] { reader.require_exactly({"b"}); }),
                HasSubstr("no place for 1 tensor:\n  \"a\""));
}

TEST(Checkpoint, WithoutManifestIsIncomplete) {
    const ScratchFolder run;
    const std::string folder = prepare_checkpoint_folder(run.path(), 100);
    write_small_shard(folder, 0, {"a"});
    EXPECT_THAT(message_of<UserError>([&] { CheckpointReader reader(folder); }),
                HasSubstr("incomplete: it has no manifest.json"));
}

TEST(Checkpoint, NamesATruncatedAndAMissingShard) {
    const ScratchFolder run;
    const std::string folder = write_small_checkpoint(run.path(), 100);
    const std::string shard = folder + "/shard-00001-of-00002.safetensors";
    const auto bytes = std::filesystem::file_size(shard);
    std::filesystem::resize_file(shard, bytes - 1);
    EXPECT_THAT(
        message_of_reading(folder),
        HasSubstr(fmt::format("{}: truncated shard: expected {} bytes, found {}", shard, bytes, bytes - 1)));
    std::filesystem::remove(shard);
    EXPECT_THAT(message_of_reading(folder), AllOf(HasSubstr(shard), HasSubstr("No such file")));
}

TEST(Checkpoint, SeesEveryFlippedBitOfAShard) {
    const ScratchFolder run;
    const std::string folder = write_small_checkpoint(run.path(), 100);
    const std::string shard = folder + "/shard-00000-of-00002.safetensors";
    const std::string bytes = read_text(shard);
    for (std::size_t bit = 0; bit < 8 * bytes.size(); bit += 3) {
        std::string damaged = bytes;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
        write_text(shard, damaged);
        ASSERT_THAT(message_of_reading(folder),
                    AllOf(HasSubstr(shard + ": damaged shard: expected checksum"), HasSubstr("found")))
            << bit;
    }
    CheckpointReader unchecked(folder, ShardCheck::sizes);
    EXPECT_THROW(unchecked.verify_shard(0), Error);
    EXPECT_NO_THROW(unchecked.verify_shard(1));
}

TEST(Checkpoint, SeesEveryFlippedBitOfTheManifest) {
    const ScratchFolder run;
    const std::string folder = write_small_checkpoint(run.path(), 100);
    const std::string path = folder + "/manifest.json";
    const std::string text = read_text(path);
    const Manifest manifest = read_manifest(folder);
    for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
        std::string damaged = text;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
        write_text(path, damaged);
        try {
            EXPECT_EQ(read_manifest(folder), manifest) << bit;  // e.g. a space that became a tab
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr(path + ": damaged manifest: ")) << bit;
        }
    }
    for (std::size_t length = 0; length + 2 < text.size(); ++length) {
        write_text(path, text.substr(0, length));
        EXPECT_THROW((void)read_manifest(folder), Error) << length;
    }
}

TEST(Checkpoint, RefusesAFolderThatAnotherRunsShardsGotInto) {
    const ScratchFolder run;
    const std::string folder = prepare_checkpoint_folder(run.path(), 100);
    Manifest manifest;
    manifest.add_shard(folder, write_small_shard(folder, 0, {"a"}));
    const ShardRecord twice = write_small_shard(folder, 1, {"a"});
    EXPECT_THAT(message_of<Error>([&] { manifest.add_shard(folder, twice); }),
                HasSubstr("tensor \"a\" is also in shard-00000-of-00002.safetensors"));
    manifest.shards.push_back(twice);
    write_manifest(folder, manifest);
    EXPECT_THAT(message_of_reading(folder), HasSubstr("holds tensor \"a\", which is also in shard-00000"));
    manifest.shards.pop_back();
    manifest.tensors["z"] = {0, DType::f32, {2}};
    write_manifest(folder, manifest);
    EXPECT_THAT(message_of_reading(folder), HasSubstr("lacks tensor \"z\""));
    manifest.tensors.clear();
    write_manifest(folder, manifest);
    EXPECT_THAT(message_of_reading(folder), HasSubstr("which the manifest does not name"));
    manifest.shards[0].file = "../shard";
    write_manifest(folder, manifest);
    EXPECT_THAT(message_of_reading(folder), HasSubstr("is not the name of a file in this folder"));
}

TEST(Checkpoint, AManifestThatNestsDeepIsRefused) {
    const ScratchFolder run;
    const std::string folder = write_small_checkpoint(run.path(), 100);
    write_text(folder + "/manifest.json",
               "{\"format_version\":1,\"checksum\":\"xxh64:0000000000000000\",\"x\":" +
                   std::string(200000, '[') + std::string(200000, ']') + "}");
    EXPECT_THAT(message_of_reading(folder), HasSubstr("damaged manifest: it nests deeper than 16 levels"));
}

TEST(Checkpoint, AFullDiskLeavesTheEarlierOneUntouched) {
    const ScratchFolder run;
    const std::string before = write_small_checkpoint(run.path(), 100);
    write_latest(run.path(), 100);
    const std::string folder = prepare_checkpoint_folder(run.path(), 200);
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const rlimit small{150, limit.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = message_of<Error>([&] { write_small_shard(folder, 0, {"a", "b"}); });
    ::setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_THAT(message, AllOf(HasSubstr(folder + "/shard-00000-of-00002.safetensors: writing failed"),
                               HasSubstr("File too large")));
    EXPECT_TRUE(std::filesystem::is_empty(folder));
    EXPECT_EQ(find_latest(run.path()), before);
    EXPECT_EQ(message_of_reading(before), "no error");
}

}  // namespace
}  // namespace moesaic
