// Damaged and hostile folders: refused with what is wrong, nothing outside of them read.
#include "launch/convert/huggingface_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string safetensors(const std::string& header, const std::string& data) {
    const u64 length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes + header + data;
}

std::string one_tensor(const std::string& name) {
    return safetensors("{\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                       std::string(8, '\0'));
}

json index_of(const std::vector<std::pair<std::string, std::string>>& weights) {
    json map = json::object();
    for (const auto& [tensor, file] : weights) map[tensor] = file;
    return {{"metadata", {{"total_size", 16}}}, {"weight_map", map}};
}

class HuggingFaceFolders : public testing::Test {
  protected:
    ScratchFolder scratch_;
    std::string folder_ = scratch_ / "model";

    void SetUp() override { fs::create_directory(folder_); }
    void put(const std::string& name, const std::string& bytes) { write_text(folder_ + "/" + name, bytes); }
    void put_index(const json& index) { put("model.safetensors.index.json", index.dump()); }
    std::string refusal() {
        try {
            const HuggingFaceFolder opened(folder_);
        } catch (const UserError& error) {
            return error.what();
        }
        return "";
    }
};

TEST_F(HuggingFaceFolders, OneFileOrShards) {
    put("a.safetensors", one_tensor("x"));
    put("b.safetensors", one_tensor("y"));
    put_index(index_of({{"x", "a.safetensors"}, {"y", "b.safetensors"}}));
    const HuggingFaceFolder sharded(folder_);
    EXPECT_EQ(sharded.names(), (std::vector<std::string>{"x", "y"}));
    EXPECT_NE(sharded.find("y"), nullptr);
    EXPECT_EQ(sharded.find("z"), nullptr);
    put("model.safetensors", one_tensor("z"));
    EXPECT_EQ(HuggingFaceFolder(folder_).names(), std::vector<std::string>{"z"}) << "as Hugging Face prefers";
}

TEST_F(HuggingFaceFolders, NeverReadsElsewhere) {
    write_text(scratch_ / "secret.safetensors", one_tensor("x"));
    fs::create_directory(folder_ + "/sub");
    put("sub/c.safetensors", one_tensor("x"));
    fs::create_symlink("../secret.safetensors", folder_ + "/link.safetensors");
    fs::create_symlink("loop.safetensors", folder_ + "/loop.safetensors");
    fs::create_symlink("missing", folder_ + "/dangling.safetensors");
    for (const std::string& name :
         {std::string("../secret.safetensors"), scratch_ / "secret.safetensors",
          std::string("sub/c.safetensors"), std::string("./../secret.safetensors"), std::string(".."),
          std::string("."), std::string(""), std::string("sub"), std::string("link.safetensors"),
          std::string("loop.safetensors"), std::string("dangling.safetensors"), std::string("a\0b", 3),
          std::string(5000, 'x')}) {
        put_index(index_of({{"x", name}}));
        EXPECT_THAT(refusal(), testing::HasSubstr("the weights cannot be read")) << name.substr(0, 40);
    }
    fs::remove(folder_ + "/model.safetensors.index.json");
    fs::create_symlink("../secret.safetensors", folder_ + "/model.safetensors");
    EXPECT_THAT(refusal(), testing::HasSubstr("outside of this folder"));
}

TEST_F(HuggingFaceFolders, SnapshotsOfTheCacheLinkToItsBlobs) {
    const std::string snapshot = scratch_ / "models--x--y/snapshots/0123";
    fs::create_directories(snapshot);
    fs::create_directories(scratch_ / "models--x--y/blobs");
    write_text(scratch_ / "models--x--y/blobs/abcd", one_tensor("x"));
    fs::create_symlink("../../blobs/abcd", snapshot + "/model.safetensors");
    EXPECT_EQ(HuggingFaceFolder(snapshot).names(), std::vector<std::string>{"x"});
}

TEST_F(HuggingFaceFolders, IndexAndFilesMustAgree) {
    put("a.safetensors", one_tensor("x"));
    put("b.safetensors", one_tensor("x"));
    put_index(index_of(
        {{"x", "a.safetensors"}, {"y", "a.safetensors"}, {"w", "gone.safetensors"}, {"v", "gone2"}}));
    const std::string missing = refusal();
    EXPECT_THAT(missing, testing::HasSubstr("gone.safetensors: there is no such file"));
    EXPECT_THAT(missing, testing::HasSubstr("gone2: there is no such file")) << "all at once";
    put_index(index_of({{"x", "a.safetensors"}, {"y", "a.safetensors"}}));
    EXPECT_THAT(refusal(),
                testing::HasSubstr("tensor \"y\" should be in a.safetensors, which does not hold it"));
    put_index(index_of({{"x", "a.safetensors"}, {"z", "b.safetensors"}}));
    EXPECT_THAT(refusal(), testing::HasSubstr("is also in another file"));
    for (const char* text :
         {"", "[]", "{}", "{\"weight_map\": 3}", "{\"weight_map\": {\"x\": 3}}",
          "{\"weight_map\": {\"x\": \"a\", \"x\": \"b\"}}", "{\"weight_map\": {\"x\": \"a.safe"}) {
        put("model.safetensors.index.json", text);
        EXPECT_THAT(refusal(), testing::HasSubstr("model.safetensors.index.json")) << text;
    }
}

TEST_F(HuggingFaceFolders, DamagedTensors) {
    const std::string good = one_tensor("x");
    for (std::size_t bytes = 0; bytes < good.size(); ++bytes) {
        put("model.safetensors", good.substr(0, bytes));
        EXPECT_NE(refusal(), "") << "cut after " << bytes;
    }
    const std::string two =
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
    std::string huge = good;
    std::memset(huge.data(), 0x7f, 8);
    for (const std::string& bytes :
         {safetensors(two, std::string(12, '\0')), huge, std::string(100, '\xff'), good + "more",
          safetensors("{\"x\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,4],\"data_offsets\":[0,8]}}",
                      "12345678"),
          safetensors("{\"x\":{\"dtype\":\"Q4\",\"shape\":[2],\"data_offsets\":[0,8]}}", "12345678"),
          safetensors("{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "12345678")}) {
        put("model.safetensors", bytes);
        EXPECT_THAT(refusal(), testing::HasSubstr("damaged safetensors file"));
    }
    put("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n");
    EXPECT_THAT(refusal(), testing::HasSubstr("git lfs pull"));
    fs::remove(folder_ + "/model.safetensors");
    EXPECT_THAT(refusal(), testing::HasSubstr("holds neither model.safetensors nor"));
    put("pytorch_model.bin", "");
    EXPECT_THAT(refusal(), testing::HasSubstr("safe_serialization=True"));
}

}  // namespace
}  // namespace moesaic
