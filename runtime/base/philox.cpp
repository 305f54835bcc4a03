#include "runtime/base/philox.h"

#include <cmath>
#include <numbers>

namespace moesaic {

namespace {

constexpr u32 kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr u32 kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;

u64 mix(u64 x) {  // splitmix64 finaliser: every input bit reaches every output bit
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

std::array<u32, 4> counter_of(u64 index) {
    return {static_cast<u32>(index), static_cast<u32>(index >> 32), 0, 0};
}

}  // namespace

u64 hash_name(std::string_view name) {
    u64 hash = 0xCBF29CE484222325ull;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    return hash;
}

Philox::Philox(u64 seed, std::string_view name) {
    const u64 key = mix(mix(seed) ^ hash_name(name));
    key_ = {static_cast<u32>(key), static_cast<u32>(key >> 32)};
}

std::array<u32, 4> Philox::block(std::array<u32, 4> c) const {
    std::array<u32, 2> k = key_;
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = u64{kMultiplier0} * c[0];
        const u64 p1 = u64{kMultiplier1} * c[2];
        c = {static_cast<u32>(p1 >> 32) ^ c[1] ^ k[0], static_cast<u32>(p1),
             static_cast<u32>(p0 >> 32) ^ c[3] ^ k[1], static_cast<u32>(p0)};
        k = {k[0] + kWeyl0, k[1] + kWeyl1};
    }
    return c;
}

u32 Philox::bits(u64 index) const {
    return block(counter_of(index / 4))[index % 4];
}

double Philox::uniform(u64 index) const {
    const auto words = block(counter_of(index));
    const u64 random = (u64{words[0]} << 32 | words[1]) >> 11;
    return static_cast<double>(random) * 0x1p-53;
}

double Philox::normal(u64 index) const {
    const auto words = block(counter_of(index));
    const double u = (static_cast<double>(words[0]) + 1.0) * 0x1p-32;
    const double v = static_cast<double>(words[1]) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace moesaic
