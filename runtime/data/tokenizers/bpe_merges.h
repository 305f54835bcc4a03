// Byte-pair encoding of one word.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

struct BpeMerge {
    i32 left = 0, right = 0;  ///< tokens that stand side by side
    i32 result = 0;           ///< the token that takes their place
};

/// The merges of a vocabulary, the earlier the stronger. Source: Sennrich, Haddow and Birch, "Neural Machine
/// Translation of Rare Words with Subword Units", ACL 2016. Immutable: threads may share it.
class BpeMerges {
  public:
    /// What encode() needs beside the word; reuse saves allocations. One for each thread.
    struct Workspace {
        struct Symbol {
            i32 token;
            u32 previous, next;
            u32 rank;  // of the merge with the next symbol, or kNoMerge
        };
        std::vector<Symbol> symbols;
        std::vector<u64> queue;  // a heap of (rank, position)
    };

    /// `byte_tokens`: the token of every byte. `merges` in order of rank, every (left, right) once.
    BpeMerges(const std::array<i32, 256>& byte_tokens, const std::vector<BpeMerge>& merges);

    /// Appends the tokens of `word` to `tokens`: of all neighbours that have a merge, the strongest (the
    /// leftmost of equals) are merged, until none is left. O(n log n) in the bytes of the word, of which
    /// there may be 2^32 - 1.
    void encode(std::string_view word, Workspace& workspace, std::vector<i32>& tokens) const;

  private:
    static constexpr u32 kNoMerge = ~u32{0};
    struct Slot {
        u64 pair = 0;
        u32 rank = kNoMerge;
        i32 result = 0;
    };

    [[nodiscard]] std::size_t slot_of(u64 pair) const;
    void queue_pair(Workspace& workspace, u32 position) const;

    std::array<i32, 256> byte_tokens_;
    std::vector<Slot> slots_;  // open addressing, at most half full
    int shift_ = 0;
};

}  // namespace moesaic
