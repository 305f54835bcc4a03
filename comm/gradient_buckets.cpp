#include "comm/gradient_buckets.h"

#include <algorithm>

namespace moesaic {

namespace {

/// Ends of all blocks in `range`, beginning with range.begin itself.
std::vector<i64> block_boundaries(const ParameterStore& store, Placement placement, ArenaRange range) {
    std::vector<i64> boundaries{range.begin};
    for (const TensorPiece& piece : pieces_in(store, placement, range)) {
        for (i64 end = piece.range.begin + kGradientBlock; end < piece.range.end; end += kGradientBlock) {
            boundaries.push_back(end);
        }
        boundaries.push_back(piece.range.end);
    }
    return boundaries;
}

/// The boundary nearest to `target`.
i64 nearest(const std::vector<i64>& boundaries, i64 target) {
    const auto after = std::ranges::lower_bound(boundaries, target);
    if (after == boundaries.begin()) return boundaries.front();
    if (after == boundaries.end()) return boundaries.back();
    return *after - target < target - *(after - 1) ? *after : *(after - 1);
}

void cut_into_slices(const ParameterStore& store, GradientBucket& bucket, int rank, int size) {
    const std::vector<i64> boundaries = block_boundaries(store, bucket.placement, bucket.range);
    i64 begin = bucket.range.begin;
    for (int owner = 0; owner < size; ++owner) {
        const i64 share = bucket.range.size() * (owner + 1) / size;
        const i64 end =
            owner + 1 == size ? bucket.range.end : nearest(boundaries, bucket.range.begin + share);
        bucket.rows.push_back(end - begin);
        if (owner == rank) bucket.owned = {begin, end};
        begin = end;
    }
}

}  // namespace

std::vector<GradientBucket> plan_buckets(const ParameterStore& store, Placement placement, i64 bucket_bytes,
                                         int rank, int size) {
    const std::span<const ArenaRange> segments = store.segments(placement);
    std::vector<GradientBucket> buckets;
    bool open = false;
    for (int segment = static_cast<int>(segments.size()) - 1; segment >= 0; --segment) {
        const ArenaRange range = segments[static_cast<std::size_t>(segment)];
        if (range.size() == 0) continue;  // a bucket does not wait for a segment that adds nothing
        if (!open) buckets.push_back({placement, segment, range, {}, {}});
        buckets.back().first_segment = segment;
        buckets.back().range.begin = range.begin;
        open = buckets.back().range.size() * size_of(store.real()) < bucket_bytes;
    }
    for (GradientBucket& bucket : buckets) cut_into_slices(store, bucket, rank, size);
    return buckets;
}

std::vector<TensorPiece> pieces_in(const ParameterStore& store, Placement placement, ArenaRange range) {
    std::vector<TensorPiece> pieces;
    for (std::size_t index = 0; index < store.parameters().size(); ++index) {
        const Parameter& parameter = store.parameters()[index];
        if (parameter.placement != placement) continue;
        const i64 offset = store.offset_of(index);
        const i64 begin = std::max(range.begin, offset);
        const i64 end = std::min(range.end, offset + parameter.shape.elements());
        if (begin < end) pieces.push_back({index, begin - offset, {begin, end}});
    }
    return pieces;
}

}  // namespace moesaic
