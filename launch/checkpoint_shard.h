// A rank's share of a checkpoint: copied out of the model and written whenever, or written at once.
#pragma once

#include <string>
#include <vector>

#include "launch/rank_runtime.h"
#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

/// Copies in host memory of what this rank writes: weights (masters where there are any), moments, buffers.
class ShardSnapshot {
  public:
    /// Collective over mesh.world(), mesh.replicas() and mesh.slices(). As the model is now; takes the memory
    /// of the snapshot before.
    void take(RankRuntime& runtime, i64 step);
    /// On any thread. One entry per logical tensor; the same bytes whenever it is written.
    SafetensorsWriter::Summary write(const std::string& path) const;

  private:
    struct Entry {
        std::string name;
        DType dtype = DType::f32;
        Shape shape;
        std::vector<std::byte> bytes;
    };
    std::vector<Entry> entries_;  // in the order of the file; memory stays from snapshot to snapshot
};

/// Collective over mesh.world(), mesh.replicas() and mesh.slices(). The file that a ShardSnapshot would write
/// now, byte for byte, without a copy. Throws what a disk does after the last collective.
SafetensorsWriter::Summary write_shard_at_once(RankRuntime& runtime, i64 step, const std::string& path);

/// Host memory for a checkpoint: what a ShardSnapshot takes, if there are `copies`, and needs to be taken.
[[nodiscard]] i64 checkpoint_copy_bytes(const RankRuntime& runtime, bool copies);

}  // namespace moesaic
