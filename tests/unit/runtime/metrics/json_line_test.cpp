// One-line JSON: what a JSON parser reads back, and the shortest form of numbers.
#include "runtime/metrics/json_line.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/base/json_depth.h"
#include "runtime/base/philox.h"

namespace moesaic {
namespace {

template <class T>
std::string json(const T& value) {
    std::string out;
    append_json(out, value);
    return out;
}

TEST(JsonLine, WritesFieldsInOrder) {
    JsonLine line;
    line.field("b", 1).field("a", std::optional<double>()).field("c", std::vector<i64>{1, 2, 3});
    line.field("d", std::map<std::string, double>{{"x", 0.5}}).field("e", true).field("f", "text");
    EXPECT_EQ(line.text(), R"({"b":1,"a":null,"c":[1,2,3],"d":{"x":0.5},"e":true,"f":"text"})");
    EXPECT_EQ(JsonLine().text(), "{}");
}

TEST(JsonLine, NumbersAreShortAndRoundTrip) {
    EXPECT_EQ(json(0.1), "0.1");
    EXPECT_EQ(json(3e-3), "0.003");
    EXPECT_EQ(json(1.0), "1");
    EXPECT_EQ(json(1e300), "1e+300");
    EXPECT_EQ(json(-0.0), "-0");
    EXPECT_EQ(json(std::numeric_limits<i64>::min()), "-9223372036854775808");
    EXPECT_EQ(json(std::numeric_limits<u64>::max()), "18446744073709551615");
    const Philox random(1, "numbers");
    for (u64 i = 0; i < 10000; ++i) {
        const auto value = std::bit_cast<double>(u64{random.bits(2 * i)} << 32 | random.bits(2 * i + 1));
        if (!std::isfinite(value)) continue;
        const std::string text = json(value);
        EXPECT_EQ(std::bit_cast<u64>(std::strtod(text.c_str(), nullptr)), std::bit_cast<u64>(value)) << text;
        EXPECT_EQ(nlohmann::json::parse(text).get<double>(), value);
        EXPECT_LE(text.size(), 24u);
    }
}

TEST(JsonLine, NumbersThatAreNotFiniteAreStrings) {
    const double infinity = std::numeric_limits<double>::infinity();
    EXPECT_EQ(json(std::nan("")), "\"nan\"");
    EXPECT_EQ(json(-std::nan("")), "\"nan\"");
    EXPECT_EQ(json(infinity), "\"inf\"");
    EXPECT_EQ(json(-infinity), "\"-inf\"");
}

TEST(JsonLine, StringsAreEscaped) {
    std::string all;
    for (int letter = 0; letter < 0x80; ++letter) all += static_cast<char>(letter);
    all += "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";  // é € and a smiling face
    const std::string line = JsonLine().field(all, all).text();
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_EQ(nlohmann::json::parse(line).at(all).get<std::string>(), all);
}

TEST(JsonDepth, CountsBracketsOutsideOfStrings) {
    EXPECT_EQ(json_depth(""), 0);
    EXPECT_EQ(json_depth("5"), 0);
    EXPECT_EQ(json_depth(R"({"a":[1,{"b":2}],"c":[[]]})"), 3);
    EXPECT_EQ(json_depth(R"({"[[[\"[[":"{{\\"})"), 1);
    EXPECT_EQ(json_depth(R"({"cut off[\)"), 1);
    EXPECT_EQ(json_depth("]]]]{"), 0) << "no JSON in any case";
    EXPECT_EQ(json_depth(std::string(300000, '[')), 300000);
}

TEST(JsonLine, BytesThatAreNotUtf8AreReplaced) {
    const std::string mark = "\xef\xbf\xbd";
    EXPECT_EQ(json("a\xff"), "\"a" + mark + "\"");
    EXPECT_EQ(json("\xc3"), "\"" + mark + "\"");
    EXPECT_EQ(json("\xc0\xaf"), "\"" + mark + mark + "\"");             // overlong
    EXPECT_EQ(json("\xed\xa0\x80"), "\"" + mark + mark + mark + "\"");  // a surrogate
    EXPECT_EQ(json("\xf4\x90\x80\x80z"), "\"" + mark + mark + mark + mark + "z\"");
    for (unsigned first = 0; first < 256; ++first)
        for (unsigned second = 0; second < 256; ++second) {
            const std::string text{static_cast<char>(first), static_cast<char>(second), '\x80'};
            EXPECT_TRUE(nlohmann::json::accept(json(text))) << first << " " << second;
        }
}

}  // namespace
}  // namespace moesaic
