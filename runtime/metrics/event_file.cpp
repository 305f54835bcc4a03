#include "runtime/metrics/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <filesystem>
#include <vector>

namespace moesaic {

namespace {

/// A protocol buffer message, field by field (protobuf.dev/programming-guides/encoding).
class Message {
  public:
    Message& number(int field, u64 value) {
        key(field, 0);
        varint(value);
        return *this;
    }
    Message& real(int field, double value) {
        key(field, 1);
        fixed(std::bit_cast<u64>(value), 8);
        return *this;
    }
    Message& single(int field, float value) {
        key(field, 5);
        fixed(std::bit_cast<u32>(value), 4);
        return *this;
    }
    /// A string, or another message.
    Message& bytes(int field, std::string_view value) {
        key(field, 2);
        varint(value.size());
        text_ += value;
        return *this;
    }
    Message& bytes(int field, const Message& value) { return bytes(field, value.text_); }
    Message& reals(int field, std::span<const double> values) {
        key(field, 2);
        varint(8 * values.size());
        for (const double value : values) fixed(std::bit_cast<u64>(value), 8);
        return *this;
    }
    [[nodiscard]] const std::string& text() const { return text_; }

  private:
    std::string text_;

    void key(int field, int wire_type) { varint(static_cast<u64>(field) << 3 | static_cast<u64>(wire_type)); }
    void varint(u64 value) {
        for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
        text_ += static_cast<char>(value);
    }
    void fixed(u64 value, int bytes) {
        for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> 8 * i);
    }
};

std::string little_endian(u64 value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * i);
    return text;
}

/// TFRecord stores checksums so, as data may hold checksums itself.
u32 masked(u32 crc) {
    return std::rotr(crc, 15) + 0xa282ead8u;
}

double wall_time() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string new_path(const std::string& folder) {
    static std::atomic<int> number = 0;
    std::filesystem::create_directories(folder);
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    return fmt::format("{}/events.out.tfevents.{:010d}.{}.{}.{}", folder, static_cast<i64>(wall_time()),
                       host.data(), ::getpid(), number++);
}

/// A value of a Summary: its tag, and what it is.
Message value_of(std::string_view tag) {
    return Message().bytes(1, tag);
}

}  // namespace

u32 crc32c(std::string_view bytes) {
    static const std::array<u32, 256> table = [] {
        std::array<u32, 256> made{};
        for (u32 i = 0; i < 256; ++i) {
            u32 crc = i;
            for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
            made[i] = crc;
        }
        return made;
    }();
    u32 crc = ~u32{0};
    for (const char byte : bytes) crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ crc >> 8;
    return ~crc;
}

void EventSummary::scalar(std::string_view tag, double value) {
    message_ += Message().bytes(1, value_of(tag).single(2, static_cast<float>(value))).text();
}

void EventSummary::bars(std::string_view tag, std::span<const i64> counts) {
    double number = 0, sum = 0, squares = 0;
    std::vector<double> limits, heights;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        const auto at = static_cast<double>(i), height = static_cast<double>(counts[i]);
        number += height;
        sum += height * at;
        squares += height * at * at;
        limits.push_back(at + 0.5);
        heights.push_back(height);
    }
    const Message histogram = Message()
                                  .real(1, -0.5)
                                  .real(2, static_cast<double>(counts.size()) - 0.5)
                                  .real(3, number)
                                  .real(4, sum)
                                  .real(5, squares)
                                  .reals(6, limits)
                                  .reals(7, heights);
    message_ += Message().bytes(1, value_of(tag).bytes(5, histogram)).text();
}

void EventSummary::text(std::string_view tag, std::string_view markdown) {
    constexpr u64 kStringType = 7;
    const Message plugin = Message().bytes(1, Message().bytes(1, "text"));  // whose data this is
    const Message tensor = Message().number(1, kStringType).bytes(2, Message()).bytes(8, markdown);
    message_ += Message().bytes(1, value_of(tag).bytes(8, tensor).bytes(9, plugin)).text();
}

EventFile::EventFile(const std::string& folder, i64 first_step) : file_(new_path(folder), false) {
    add_event(Message().real(1, wall_time()).bytes(3, "brain.Event:2").text());
    if (first_step <= 1) return;
    constexpr u64 kStart = 1;  // of a session: steps from here on belong to it
    add_event(Message()
                  .real(1, wall_time())
                  .number(2, static_cast<u64>(first_step))
                  .bytes(7, Message().number(1, kStart))
                  .text());
}

void EventFile::add(i64 step, const EventSummary& summary) {
    if (summary.empty()) return;
    add_event(
        Message().real(1, wall_time()).number(2, static_cast<u64>(step)).bytes(5, summary.message()).text());
}

/// TFRecord: length, its checksum, data, their checksum.
void EventFile::add_event(std::string_view event) {
    const std::string length = little_endian(event.size(), 8);
    file_.append_bytes(length + little_endian(masked(crc32c(length)), 4) + std::string(event) +
                       little_endian(masked(crc32c(event)), 4));
}

}  // namespace moesaic
