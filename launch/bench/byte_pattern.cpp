#include "launch/bench/byte_pattern.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// Word `index` of what one rank sends another (splitmix64 over a key of the pair).
class WordStream {
  public:
    WordStream(int source, int destination, u64 salt)
        : key_(mix(mix(salt + 1) + (static_cast<u64>(source) << 32) + static_cast<u64>(destination))) {}
    [[nodiscard]] u64 at(i64 index) const {
        return mix(key_ + static_cast<u64>(index) * 0x9E3779B97F4A7C15ull);
    }

  private:
    static u64 mix(u64 x) {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
        return x ^ (x >> 31);
    }
    u64 key_;
};

/// Elements of a word, of `bytes` each, in which any bit of `difference` is set.
i64 differing_elements(u64 difference, i64 element_bytes) {
    i64 count = 0;
    for (i64 shift = 0; shift < 8; shift += element_bytes) {
        const u64 mask = element_bytes == 8 ? ~u64{0} : (u64{1} << (8 * element_bytes)) - 1;
        count += (difference >> (8 * shift) & mask) != 0 ? 1 : 0;
    }
    return count;
}

}  // namespace

void fill_pattern(std::span<std::byte> to, int source, int destination, u64 salt) {
    const WordStream words(source, destination, salt);
    for (std::size_t at = 0, index = 0; at < to.size(); at += 8, ++index) {
        const u64 word = words.at(static_cast<i64>(index));
        std::memcpy(to.data() + at, &word, std::min<std::size_t>(8, to.size() - at));
    }
}

i64 count_differences(std::span<const std::byte> have, int source, int destination, u64 salt,
                      i64 element_bytes) {
    const WordStream words(source, destination, salt);
    i64 wrong = 0;
    for (std::size_t at = 0, index = 0; at < have.size(); at += 8, ++index) {
        u64 word = words.at(static_cast<i64>(index)), got = word;
        std::memcpy(&got, have.data() + at, std::min<std::size_t>(8, have.size() - at));
        if (got != word) wrong += differing_elements(got ^ word, element_bytes);
    }
    return wrong;
}

ExchangeBuffers::ExchangeBuffers(i64 send_bytes, i64 recv_bytes)
    : send_(static_cast<std::size_t>(send_bytes)),
      recv_(static_cast<std::size_t>(recv_bytes + kGuardBytes)) {}

void ExchangeBuffers::prepare(const RankMatrix& rows, i64 row_bytes, int rank, u64 salt) {
    std::ranges::fill(recv_, kSpoiled);
    std::size_t at = 0;
    for (int peer = 0; peer < rows.ranks; ++peer) {
        const auto bytes = static_cast<std::size_t>(rows.at(rank, peer) * row_bytes);
        MOESAIC_ASSERT(at + bytes <= send_.size(), "{} bytes in {}", at + bytes, send_.size());
        fill_pattern({send_.data() + at, bytes}, rank, peer, salt);
        at += bytes;
    }
}

i64 ExchangeBuffers::count_wrong(const RankMatrix& rows, i64 row_bytes, int rank, u64 salt,
                                 i64 element_bytes) const {
    i64 wrong = 0;
    std::size_t at = 0;
    for (int peer = 0; peer < rows.ranks; ++peer) {
        const auto bytes = static_cast<std::size_t>(rows.at(peer, rank) * row_bytes);
        wrong += count_differences({recv_.data() + at, bytes}, peer, rank, salt, element_bytes);
        at += bytes;
    }
    return wrong + std::count_if(recv_.begin() + static_cast<std::ptrdiff_t>(at), recv_.end(),
                                 [](std::byte one) { return one != kSpoiled; });
}

}  // namespace moesaic
