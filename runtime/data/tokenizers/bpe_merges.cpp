#include "runtime/data/tokenizers/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

constexpr u32 kEnd = ~u32{0};

u64 pair_of(i32 left, i32 right) {
    return static_cast<u64>(static_cast<u32>(left)) << 32 | static_cast<u32>(right);
}

}  // namespace

BpeMerges::BpeMerges(const std::array<i32, 256>& byte_tokens, const std::vector<BpeMerge>& merges)
    : byte_tokens_(byte_tokens) {
    const std::size_t capacity = std::bit_ceil(2 * merges.size() + 2);
    slots_.resize(capacity);
    shift_ = 64 - std::countr_zero(capacity);
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
        const u64 pair = pair_of(merges[rank].left, merges[rank].right);
        Slot& slot = slots_[slot_of(pair)];
        MOESAIC_ASSERT(slot.rank == kNoMerge, "merges {} and {} are of the same pair", slot.rank, rank);
        slot = {pair, static_cast<u32>(rank), merges[rank].result};
    }
}

std::size_t BpeMerges::slot_of(u64 pair) const {
    // Multiplication by 2^64 / golden ratio spreads neighbouring pairs over the table.
    std::size_t index = pair * 0x9e3779b97f4a7c15u >> shift_;
    while (slots_[index].rank != kNoMerge && slots_[index].pair != pair) {
        index = (index + 1) & (slots_.size() - 1);
    }
    return index;
}

void BpeMerges::queue_pair(Workspace& workspace, u32 position) const {
    auto& symbol = workspace.symbols[position];
    symbol.rank = kNoMerge;
    if (symbol.next == kEnd) return;
    symbol.rank = slots_[slot_of(pair_of(symbol.token, workspace.symbols[symbol.next].token))].rank;
    if (symbol.rank == kNoMerge) return;
    workspace.queue.push_back(u64{symbol.rank} << 32 | position);
    std::push_heap(workspace.queue.begin(), workspace.queue.end(), std::greater<>());
}

void BpeMerges::encode(std::string_view word, Workspace& workspace, std::vector<i32>& tokens) const {
    MOESAIC_ASSERT(word.size() < kEnd, "a word of {} bytes", word.size());
    auto& symbols = workspace.symbols;
    const auto count = static_cast<u32>(word.size());
    symbols.resize(count);
    workspace.queue.clear();
    for (u32 i = 0; i < count; ++i) {
        symbols[i] = {byte_tokens_[static_cast<unsigned char>(word[i])], i == 0 ? kEnd : i - 1,
                      i + 1 == count ? kEnd : i + 1, kNoMerge};
    }
    for (u32 i = 0; i < count; ++i) queue_pair(workspace, i);
    while (!workspace.queue.empty()) {
        std::pop_heap(workspace.queue.begin(), workspace.queue.end(), std::greater<>());
        const u64 strongest = workspace.queue.back();
        workspace.queue.pop_back();
        const auto position = static_cast<u32>(strongest);
        auto& left = symbols[position];
        if (left.rank != strongest >> 32) continue;  // one of the two was merged with its other neighbour
        auto& right = symbols[left.next];
        left.token = slots_[slot_of(pair_of(left.token, right.token))].result;
        left.next = right.next;
        right.rank = kNoMerge;
        if (left.next != kEnd) symbols[left.next].previous = position;
        queue_pair(workspace, position);
        if (left.previous != kEnd) queue_pair(workspace, left.previous);
    }
    for (u32 i = 0; i < count; i = symbols[i].next) {
        tokens.push_back(symbols[i].token);
        if (symbols[i].next == kEnd) break;
    }
}

}  // namespace moesaic
