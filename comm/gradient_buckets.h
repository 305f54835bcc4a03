// How gradients are cut: arenas into buckets, buckets into one slice per rank, tensors into blocks.
#pragma once

#include <vector>

#include "runtime/parameter_store.h"

namespace moesaic {

/// Every logical tensor is cut from its start into blocks of this many elements (the last one is short).
/// Slices consist of whole blocks, so that sums per block do not depend on the layout.
inline constexpr i64 kGradientBlock = 4096;

/// Consecutive segments of one arena that travel together, and which rank of the group owns which part.
struct GradientBucket {
    Placement placement = Placement::replicated;
    int first_segment = 0;  ///< the bucket is complete when the backward has passed this segment
    ArenaRange range;
    std::vector<i64> rows;  ///< elements owned by each rank of the reduce group, in rank order
    ArenaRange owned;       ///< this rank's part
};

/// A part of one logical tensor; begins at a block of it and ends at a block or at its end.
struct TensorPiece {
    std::size_t parameter = 0;  ///< index in ParameterStore::parameters()
    i64 first_element = 0;      ///< within the tensor
    ArenaRange range;           ///< within the arena
};

/// Buckets of one arena in backward order: segments from the end until `bucket_bytes` are reached. `rank` and
/// `size` are those of the group that sums the gradients.
[[nodiscard]] std::vector<GradientBucket> plan_buckets(const ParameterStore& store, Placement placement,
                                                       i64 bucket_bytes, int rank, int size);

/// The logical tensors that `range` of an arena touches, in arena order.
[[nodiscard]] std::vector<TensorPiece> pieces_in(const ParameterStore& store, Placement placement,
                                                 ArenaRange range);

}  // namespace moesaic
