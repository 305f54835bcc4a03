// Token ids against those of tiktoken and of Hugging Face's tokenizers (tests/reference/check_tokenizers.py).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "runtime/base/checksum.h"
#include "runtime/data/tokenizer.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using Json = nlohmann::json;

const std::string kRoot = std::string(MOESAIC_SOURCE_DIR) + "/";

const Json& golden() {
    static const Json all = Json::parse(read_text(kRoot + "tests/reference/tokenizers/golden.json"));
    return all;
}

std::string bytes_of_hex(const std::string& hex) {
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2)
        bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    return bytes;
}

class GoldenIds : public testing::TestWithParam<std::string> {
  protected:
    const Json& golden_ = golden().at("tokenizers").at(GetParam());
    std::unique_ptr<Tokenizer> tokenizer_ = make_tokenizer(kRoot + GetParam());
};

TEST_P(GoldenIds, OfNastyStrings) {
    const Json& ids = golden_.at("ids");
    ASSERT_GE(ids.size(), golden().at("well_formed").get<std::size_t>());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const std::string hex = golden().at("strings").at(i);
        EXPECT_EQ(tokenizer_->encode(bytes_of_hex(hex)), ids[i].get<std::vector<i32>>()) << bytes_of_hex(hex);
    }
}

TEST_P(GoldenIds, OfWholeFiles) {
    ASSERT_EQ(golden_.at("quad").size(), 4u);
    for (const auto& [file, expected] : golden_.at("quad").items()) {
        const std::string text = read_text(kRoot + "configs/data/quad/" + file);
        const std::vector<i32> ids = tokenizer_->encode(text);
        EXPECT_EQ(ids.size(), expected.at("tokens").get<std::size_t>()) << file;
        const std::string hash = fmt::format("{:016x}", checksum_of(ids.data(), ids.size() * sizeof(i32)));
        EXPECT_EQ(hash, expected.at("xxh64").get<std::string>()) << file;
        const bool puts_space = GetParam().find("prefix_space") != std::string::npos;
        EXPECT_EQ(tokenizer_->decode(ids), (puts_space ? " " : "") + text);
    }
}

/// Every tokenizer that changes nothing of a text gives it back, whatever its bytes.
TEST_P(GoldenIds, RoundTripOfAllStrings) {
    const bool changes = GetParam().find("prefix_space") != std::string::npos;
    for (const Json& hex : golden().at("strings")) {
        const std::string text = bytes_of_hex(hex);
        const std::vector<i32> ids = tokenizer_->encode(text);
        std::string one_by_one;
        for (const i32 id : ids) one_by_one += tokenizer_->decode(std::span(&id, 1));
        EXPECT_EQ(one_by_one, tokenizer_->decode(ids));
        const bool normalizes =
            GetParam().find("qwen") != std::string::npos || GetParam().find("neox") != std::string::npos;
        if (!changes && !normalizes) {
            EXPECT_EQ(one_by_one, text) << hex;
        }
    }
}

std::vector<std::string> all_files() {
    std::vector<std::string> files;
    for (const auto& [file, unused] : golden().at("tokenizers").items()) files.push_back(file);
    return files;
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenIds, testing::ValuesIn(all_files()), [](const auto& name) {
    std::string text = name.param.substr(name.param.rfind('/') + 1);
    std::replace_if(
        text.begin(), text.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
    return text;
});

}  // namespace
}  // namespace moesaic
