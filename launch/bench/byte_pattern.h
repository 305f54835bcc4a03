// Bytes that say where they come from: every byte of an exchange is a function of (source, destination,
// index).
#pragma once

#include <span>
#include <vector>

#include "comm/traffic/traffic.h"

namespace moesaic {

/// Writes what `source` sends to `destination`; `salt` makes each exchange's bytes its own.
void fill_pattern(std::span<std::byte> to, int source, int destination, u64 salt);
/// Elements of `element_bytes` (1, 2, 4 or 8) in which any bit differs from that.
[[nodiscard]] i64 count_differences(std::span<const std::byte> have, int source, int destination, u64 salt,
                                    i64 element_bytes);

/// Send and receive memory of one rank for matrices of rows, with a guard behind what may be written.
class ExchangeBuffers {
  public:
    /// For at most so many bytes each way.
    ExchangeBuffers(i64 send_bytes, i64 recv_bytes);

    /// Peer p's bytes stand behind those of peers 0..p-1.
    [[nodiscard]] std::byte* send() { return send_.data(); }
    [[nodiscard]] std::byte* recv() { return recv_.data(); }
    /// Fills what `rank` sends by `rows` of `row_bytes`, and spoils what it receives.
    void prepare(const RankMatrix& rows, i64 row_bytes, int rank, u64 salt);
    /// Elements that `rank` received wrongly, and guard bytes that were overwritten.
    [[nodiscard]] i64 count_wrong(const RankMatrix& rows, i64 row_bytes, int rank, u64 salt,
                                  i64 element_bytes) const;

  private:
    static constexpr i64 kGuardBytes = 256;
    static constexpr std::byte kSpoiled{0xA5};
    std::vector<std::byte> send_, recv_;
};

}  // namespace moesaic
