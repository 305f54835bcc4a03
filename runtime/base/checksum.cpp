#include "runtime/base/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace moesaic {

namespace {

constexpr u64 kPrime1 = 0x9E3779B185EBCA87u;
constexpr u64 kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr u64 kPrime3 = 0x165667B19E3779F9u;
constexpr u64 kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr u64 kPrime5 = 0x27D4EB2F165667C5u;

template <class Word>
Word load(const std::byte* data) {
    static_assert(std::endian::native == std::endian::little, "words are read in little-endian order");
    Word word;
    std::memcpy(&word, data, sizeof word);
    return word;
}

u64 mix(u64 lane, u64 word) {
    return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

u64 avalanche(u64 hash) {
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
}

}  // namespace

std::array<u64, 4> Checksum::initial_lanes() {
    return {kPrime1 + kPrime2, kPrime2, 0, u64{0} - kPrime1};
}

void Checksum::mix_stripe(const std::byte* stripe) {
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane)
        lanes_[lane] = mix(lanes_[lane], load<u64>(stripe + 8 * lane));
}

void Checksum::update(const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    const auto* next = static_cast<const std::byte*>(data);
    total_bytes_ += bytes;
    if (pending_bytes_ > 0) {
        const std::size_t taken = std::min(bytes, kStripeBytes - pending_bytes_);
        std::memcpy(pending_.data() + pending_bytes_, next, taken);
        pending_bytes_ += taken;
        next += taken;
        bytes -= taken;
        if (pending_bytes_ < kStripeBytes) return;
        mix_stripe(pending_.data());
        pending_bytes_ = 0;
    }
    for (; bytes >= kStripeBytes; bytes -= kStripeBytes, next += kStripeBytes) mix_stripe(next);
    std::memcpy(pending_.data(), next, bytes);
    pending_bytes_ = bytes;
}

u64 Checksum::value() const {
    u64 hash = kPrime5;
    if (total_bytes_ >= kStripeBytes) {
        hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
               std::rotl(lanes_[3], 18);
        for (const u64 lane : lanes_) hash = (hash ^ mix(0, lane)) * kPrime1 + kPrime4;
    }
    hash += total_bytes_;
    const std::byte* next = pending_.data();
    std::size_t bytes = pending_bytes_;
    for (; bytes >= 8; bytes -= 8, next += 8)
        hash = std::rotl(hash ^ mix(0, load<u64>(next)), 27) * kPrime1 + kPrime4;
    for (; bytes >= 4; bytes -= 4, next += 4)
        hash = std::rotl(hash ^ (load<u32>(next) * kPrime1), 23) * kPrime2 + kPrime3;
    for (; bytes > 0; --bytes, ++next)
        hash = std::rotl(hash ^ (std::to_integer<u64>(*next) * kPrime5), 11) * kPrime1;
    return avalanche(hash);
}

u64 checksum_of(const void* data, std::size_t bytes) {
    Checksum checksum;
    checksum.update(data, bytes);
    return checksum.value();
}

}  // namespace moesaic
