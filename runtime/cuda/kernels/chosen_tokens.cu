#include "runtime/cuda/kernels/chosen_tokens.h"

#include "runtime/cuda/kernels/choosing.h"

namespace moesaic::kernels {

/// What is known of the rank of the last token that is taken: its leading digits, of 8 bits each, and how
/// many tokens with these digits are taken.
template <class Rank>
struct LastTaken {
    Rank digits;
    i32 wanted;
};

/// One digit more: `count` says how often each comes among the tokens with the digits before.
template <class Rank>
__device__ inline void next_digit(const i32* count, int shift, const ThreadBlock& block,
                                  LastTaken<Rank>& last) {
    GPU_SHARED(i32, of_warp, kBlockWarps);
    GPU_SHARED(LastTaken<Rank>, found, 1);
    const int digit = kBlockThreads - 1 - block.thread;  // the first thread has the largest
    const i32 mine = count[digit], before = block.sum_before(mine, of_warp);
    if (before < last.wanted && last.wanted <= before + mine)
        *found = {last.digits | static_cast<Rank>(digit) << shift, last.wanted - before};
    block.sync();
    last = *found;
}

template <class T>
__device__ void ChosenTokensColumn<T>::operator()(i64 number, const ThreadBlock& block) const {
    using Rank = decltype(rank_of(T{}));
    GPU_SHARED(i32, count, kBlockThreads);
    GPU_SHARED(i32, ties_of_warp, kBlockWarps);
    const i64 expert = number % experts, first = number / experts * rows_per_object;
    const i64 end = smaller(first + rows_per_object, tokens);
    const auto rank_at = [&](i64 token) { return rank_of(scores[token * experts + expert]); };
    LastTaken<Rank> last{0, static_cast<i32>(smaller(take, end - first))};
    for (int shift = static_cast<int>(sizeof(Rank)) * 8 - 8; shift >= 0; shift -= 8) {
        count[block.thread] = 0;
        block.sync();
        for (i64 token = first + block.thread; token < end; token += kBlockThreads) {
            const Rank rank = rank_at(token);
            if (rank >> shift >> 8 == last.digits >> shift >> 8)
                atomicAdd(&count[static_cast<int>(rank >> shift & 255)], 1);
        }
        block.sync();
        next_digit(count, shift, block, last);
    }
    i32 ties = 0;  // so far
    for (i64 start = first; start < end; start += kBlockThreads) {
        const i64 token = start + block.thread;
        const Rank rank = token < end ? rank_at(token) : Rank{0};
        const i32 tie = token < end && rank == last.digits ? 1 : 0;
        const i32 before = block.sum_before(tie, ties_of_warp);
        const bool taken = rank > last.digits || (tie != 0 && ties + before < last.wanted);
        if (token < end) index[token * experts + expert] = taken ? static_cast<i32>(expert) : -1;
        for (int i = 0; i < kBlockWarps; ++i) ties += ties_of_warp[i];
        block.sync();
    }
}

MOESAIC_FOR_REALS(MOESAIC_EACH_BLOCK, ChosenTokensColumn);

}  // namespace moesaic::kernels
