// TensorBoard's files, read back by a reader of its own: framing, checksums and messages bit by bit.
#include "runtime/metrics/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <map>
#include <vector>

#include "runtime/metrics/tensorboard_sink.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

u64 little_endian(const std::string& bytes) {
    u64 value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
}

/// CRC-32C by the definition: a division of polynomials, bit by bit.
u32 slow_crc32c(const std::string& bytes) {
    u32 crc = 0xffffffffu;
    for (const char byte : bytes) {
        for (int bit = 0; bit < 8; ++bit) {
            const bool one = ((crc ^ static_cast<unsigned char>(byte) >> bit) & 1u) != 0;
            crc = crc >> 1 ^ (one ? 0x82f63b78u : 0u);
        }
    }
    return crc ^ 0xffffffffu;
}

u32 masked_checksum(const std::string& bytes) {
    const u32 crc = slow_crc32c(bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

struct Field {
    int wire_type = 0;
    std::string bytes;  // of the value; varints as eight

    [[nodiscard]] u64 number() const { return little_endian(bytes); }
    [[nodiscard]] double real() const { return std::bit_cast<double>(number()); }
    [[nodiscard]] float single() const { return std::bit_cast<float>(static_cast<u32>(number())); }
    [[nodiscard]] std::vector<double> reals() const {
        std::vector<double> all;
        for (std::size_t i = 0; i < bytes.size(); i += 8)
            all.push_back(std::bit_cast<double>(little_endian(bytes.substr(i, 8))));
        return all;
    }
};
using Fields = std::multimap<int, Field>;

Fields parse(const std::string& message) {
    Fields fields;
    std::size_t at = 0;
    const auto varint = [&] {
        u64 value = 0;
        for (int shift = 0; at < message.size(); shift += 7) {
            const auto byte = static_cast<unsigned char>(message[at++]);
            value |= static_cast<u64>(byte & 0x7f) << shift;
            if (byte < 0x80) break;
        }
        return value;
    };
    while (at < message.size()) {
        const u64 key = varint();
        Field field{static_cast<int>(key & 7), {}};
        std::size_t length = 0;
        if (field.wire_type == 0) {
            const u64 value = varint();
            for (int i = 0; i < 8; ++i) field.bytes += static_cast<char>(value >> 8 * i);
        } else {
            length = field.wire_type == 1 ? 8 : field.wire_type == 5 ? 4 : varint();
        }
        EXPECT_LE(at + length, message.size()) << "a field beyond its message";
        if (length > 0) field.bytes = message.substr(at, length);
        at += length;
        fields.emplace(static_cast<int>(key >> 3), field);
    }
    return fields;
}

const Field& only(const Fields& fields, int number) {
    EXPECT_EQ(fields.count(number), 1u) << "field " << number;
    static const Field kNone;
    const auto found = fields.find(number);
    return found == fields.end() ? kNone : found->second;
}

std::vector<Fields> read_events(const std::string& path) {
    const std::string file = read_text(path);
    std::vector<Fields> events;
    for (std::size_t at = 0; at < file.size();) {
        const std::string length = file.substr(at, 8);
        EXPECT_EQ(little_endian(file.substr(at + 8, 4)), masked_checksum(length));
        const std::string event = file.substr(at + 12, little_endian(length));
        EXPECT_EQ(event.size(), little_endian(length)) << "a torn event";
        EXPECT_EQ(little_endian(file.substr(at + 12 + event.size(), 4)), masked_checksum(event));
        events.push_back(parse(event));
        at += 16 + event.size();
    }
    return events;
}

std::vector<std::string> event_files(const std::string& folder) {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
    std::ranges::sort(files);
    return files;
}

/// Scalars by tag and step.
std::map<std::string, std::map<i64, float>> scalars_of(const std::vector<Fields>& events) {
    std::map<std::string, std::map<i64, float>> scalars;
    for (const Fields& event : events) {
        if (!event.contains(5)) continue;
        const auto step = static_cast<i64>(only(event, 2).number());
        const Fields summary = parse(only(event, 5).bytes);
        for (const auto& [number, value] : summary) {
            const Fields parts = parse(value.bytes);
            if (parts.contains(2)) scalars[only(parts, 1).bytes][step] = only(parts, 2).single();
        }
    }
    return scalars;
}

SinkOptions in_folder(const std::string& folder) {
    SinkOptions options;
    options.folder = folder;
    return options;
}

TEST(EventFile, Crc32cIsThatOfTheStandard) {
    EXPECT_EQ(crc32c("123456789"), 0xe3069283u);              // the check value of CRC-32C's catalogue entry
    EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);    // RFC 3720, B.4
    EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);  // RFC 3720, B.4
    std::string bytes;
    for (int i = 0; i < 300; ++i) bytes += static_cast<char>(37 * i);
    EXPECT_EQ(crc32c(bytes), slow_crc32c(bytes));
}

TEST(EventFile, ScalarsComeBack) {
    const ScratchFolder run;
    {
        EventFile file(run.path(), 1);
        EventSummary summary;
        summary.scalar("train/loss", 3.25);
        summary.scalar("train/lr", std::nan(""));
        file.add(7, summary);
        file.add(8, EventSummary());  // nothing to say
    }
    const auto files = event_files(run.path());
    ASSERT_EQ(files.size(), 1u);
    EXPECT_THAT(files[0], HasSubstr("/events.out.tfevents."));
    const auto events = read_events(files[0]);
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(only(events[0], 3).bytes, "brain.Event:2");
    EXPECT_GT(only(events[1], 1).real(), 1.6e9);  // seconds since 1970
    const auto scalars = scalars_of(events);
    EXPECT_EQ(scalars.at("train/loss").at(7), 3.25f);
    EXPECT_TRUE(std::isnan(scalars.at("train/lr").at(7)));
}

TEST(EventFile, LoadsAreBarsOfTheExperts) {
    const ScratchFolder run;
    {
        EventFile file(run.path(), 1);
        EventSummary summary;
        summary.bars("load/layer_00", std::vector<i64>{5, 0, 11});
        file.add(3, summary);
    }
    const auto events = read_events(event_files(run.path()).at(0));
    const Fields value = parse(only(parse(only(events.at(1), 5).bytes), 1).bytes);
    const Fields histogram = parse(only(value, 5).bytes);
    EXPECT_THAT(only(histogram, 6).reals(), ElementsAre(0.5, 1.5, 2.5));
    EXPECT_THAT(only(histogram, 7).reals(), ElementsAre(5, 0, 11));
    EXPECT_EQ(only(histogram, 3).real(), 16);
    EXPECT_EQ(only(histogram, 4).real(), 22);
    EXPECT_EQ(only(histogram, 5).real(), 44);
}

TEST(TensorboardSink, EveryNumberHasItsCurve) {
    const ScratchFolder run;
    {
        TensorboardSink sink(in_folder(run.path()));
        RunRecord start;
        start.config = "run:\n  name: x\n";
        sink.write(start);
        StepRecord step;
        step.step = 10;
        step.loss = 2.5;
        step.tokens_per_s = 1000;
        step.bounds["prequential"].value = 0.5;
        sink.write(step);
        ExpertsRecord experts;
        experts.step = 10;
        experts.layer = 2;
        experts.load = {3, 5};
        experts.max_over_mean = 1.25;
        experts.dead = 0;
        sink.write(experts);
        EvalRecord evaluation;
        evaluation.step = 10;
        evaluation.heldout_loss = 2.75;
        evaluation.heldout_by_source["optics"] = 3;
        evaluation.routing_changed = {{2, 0.125}};
        sink.write(evaluation);
        sink.flush();
    }
    const auto events = read_events(event_files(run.path() + "/tensorboard").at(0));
    const auto scalars = scalars_of(events);
    const std::map<std::string, float> expected{{"train/loss", 2.5f},
                                                {"speed/tokens_per_s", 1000.f},
                                                {"bounds/prequential", 0.5f},
                                                {"max_over_mean/layer_02", 1.25f},
                                                {"dead/layer_02", 0.f},
                                                {"eval/heldout_loss", 2.75f},
                                                {"heldout_by_source/optics", 3.f},
                                                {"routing_changed/layer_02", 0.125f}};
    for (const auto& [tag, value] : expected) {
        ASSERT_THAT(scalars, Contains(Key(tag)));
        EXPECT_EQ(scalars.at(tag).at(10), value) << tag;
    }
    EXPECT_THAT(scalars, Not(Contains(Key("train/step"))));
    EXPECT_THAT(scalars, Not(Contains(Key("train/loss_aux")))) << "nothing was measured";
    EXPECT_THAT(read_text(event_files(run.path() + "/tensorboard").at(0)), HasSubstr("```yaml\nrun:\n"));
}

TEST(TensorboardSink, AResumedRunAppendsAFileThatTakesLaterStepsBack) {
    const ScratchFolder run;
    SinkOptions options = in_folder(run.path());
    { TensorboardSink sink(options); }
    options.resume = true;
    options.first_step = 101;
    { TensorboardSink sink(options); }
    const auto files = event_files(run.path() + "/tensorboard");
    ASSERT_EQ(files.size(), 2u);
    const auto events = read_events(files[1]);
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(only(events[1], 2).number(), 101u);
    constexpr u64 kStart = 1;
    EXPECT_EQ(only(parse(only(events[1], 7).bytes), 1).number(), kStart);
    EXPECT_EQ(read_events(files[0]).size(), 1u) << "a fresh run begins no session anew";
}

}  // namespace
}  // namespace moesaic
