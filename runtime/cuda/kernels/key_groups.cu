#include "runtime/cuda/kernels/key_groups.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// The number of a key's group in the tile; -1 where it is in another or in none.
__device__ inline int place_in_tile(i32 key, i64 first_group) {
    const i64 place = key - first_group;
    return key >= 0 && place >= 0 && place < kBlockThreads ? static_cast<int>(place) : -1;
}

constexpr int kKeysAtOnce = 4;
/// The places in the tile of kKeysAtOnce keys, each `step` after the one before; -1 past the last. All are
/// asked for before the first is waited for.
struct PlacesAtOnce {
    int place[kKeysAtOnce];
    __device__ PlacesAtOnce(const KeyChunks& in, i64 first, i64 last, int step, i64 first_group) {
        i32 key[kKeysAtOnce];
        for (int i = 0; i < kKeysAtOnce; ++i)
            key[i] = first + i * step < last ? in.key[first + i * step] : -1;
        for (int i = 0; i < kKeysAtOnce; ++i) place[i] = place_in_tile(key[i], first_group);
    }
};

__device__ inline void count_keys(const KeyChunks& in, i64 first, i64 last, int step, i64 first_group,
                                  i32* count) {
    for (; first < last; first += kKeysAtOnce * step) {
        const PlacesAtOnce at(in, first, last, step, first_group);
        for (int i = 0; i < kKeysAtOnce; ++i)
            if (at.place[i] >= 0) atomicAdd(&count[at.place[i]], 1);
    }
}

__device__ void KeyCountChunk::operator()(i64 number, const ThreadBlock& block) const {
    GPU_SHARED(i32, count, kBlockThreads);
    const i64 chunk = number / in.tiles, first_group = number % in.tiles * kBlockThreads;
    const i64 first = chunk * in.keys_per_chunk, last = smaller(first + in.keys_per_chunk, in.keys);
    count[block.thread] = 0;
    block.sync();
    count_keys(in, first + block.thread, last, kBlockThreads, first_group, count);
    block.sync();
    const i64 group = first_group + block.thread;
    if (group < in.groups) in.counts_of_chunk[chunk * in.groups + group] = count[block.thread];
}

struct GroupCounts {
    i32 before, all;  ///< in the chunks before this one, and in all
};
__device__ inline GroupCounts counts_of(const KeyChunks& in, i64 group, i64 chunk) {
    GroupCounts counts{0, 0};
    for (i64 other = 0; other < in.chunks; ++other) {
        const i32 count = in.counts_of_chunk[other * in.groups + group];
        counts.before += other < chunk ? count : 0;
        counts.all += count;
    }
    return counts;
}

/// The sum of `value` over the threads before this one, and of `more` over all.
__device__ inline i32 sum_before(i32 value, i32 more, const ThreadBlock& block) {
    GPU_SHARED(i32, of_warp, kBlockWarps);
    GPU_SHARED(i32, more_of_warp, kBlockWarps);
    more = block.warp().sum(more);
    if (block.thread % 32 == 0) more_of_warp[block.warp_number()] = more;
    i32 sum = block.sum_before(value, of_warp);
    for (int i = 0; i < kBlockWarps; ++i) sum += more_of_warp[i];
    return sum;
}

/// The lanes whose place is this one's; none where it is -1.
__device__ inline unsigned lanes_like(int place) {
    unsigned lanes = __ballot_sync(Warp::kAll, place >= 0);
    for (int bit = 1; bit < kBlockThreads; bit *= 2) {
        const unsigned set = __ballot_sync(Warp::kAll, (place & bit) != 0);
        lanes &= (place & bit) != 0 ? set : ~set;
    }
    return place >= 0 ? lanes : 0;
}

/// Every warp has a part of the chunk: how often each group comes in it, then where its next key goes.
__device__ void KeyPlaceChunk::operator()(i64 number, const ThreadBlock& block) const {
    GPU_SHARED(i32, next, kBlockWarps * kBlockThreads);
    const i64 chunk = number / in.tiles, first_group = number % in.tiles * kBlockThreads;
    const i64 group = first_group + block.thread;
    const GroupCounts mine = group < in.groups ? counts_of(in, group, chunk) : GroupCounts{0, 0};
    i32 of_lower_tiles = 0;
    for (i64 other = block.thread; other < first_group; other += kBlockThreads)
        of_lower_tiles += counts_of(in, other, 0).all;
    for (int i = 0; i < kBlockWarps; ++i) next[i * kBlockThreads + block.thread] = 0;
    i32 place = sum_before(mine.all, of_lower_tiles, block);  // and waits for the zeros
    if (chunk == 0 && group < in.groups) {
        counts[group] = mine.all;
        if (first_place) first_place[group] = place;
    }
    place += mine.before;

    const int lane = block.thread % 32;
    i32* const my_next = next + block.warp_number() * kBlockThreads;
    const i64 part = in.keys_per_chunk / kBlockWarps;
    const i64 first = chunk * in.keys_per_chunk + block.warp_number() * part;
    const i64 last = smaller(first + part, in.keys);
    count_keys(in, first + lane, last, 32, first_group, my_next);
    block.sync();
    for (int i = 0; i < kBlockWarps; ++i) {
        i32& here = next[i * kBlockThreads + block.thread];
        const i32 count = here;
        here = place;
        place += count;
    }
    block.sync();
    for (i64 start = first; start < last; start += kKeysAtOnce * 32) {
        const PlacesAtOnce at(in, start + lane, last, 32, first_group);
        for (int i = 0; i < kKeysAtOnce; ++i) {
            const int to = at.place[i];
            const unsigned like = lanes_like(to);
            const int before = __popc(like & ((1u << lane) - 1));
            if (to >= 0) order[my_next[to] + before] = static_cast<i32>(start + i * 32 + lane);
            __syncwarp();
            if (to >= 0 && before == 0) my_next[to] += __popc(like);
            __syncwarp();
        }
    }
}

MOESAIC_EACH_BLOCK(KeyCountChunk);
MOESAIC_EACH_BLOCK(KeyPlaceChunk);

}  // namespace moesaic::kernels
