// A rank's share of a checkpoint: copied out of the model at once, written to its file whenever.
#pragma once

#include <map>
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
    void describe(const RankRuntime& runtime);
    void copy_to(const std::string& name, const void* data, i64 bytes);

    std::vector<Entry> entries_;  // in the order of the file; memory stays from snapshot to snapshot
    std::map<std::string, std::size_t> index_;
};

/// Host memory that a ShardSnapshot takes, and what it needs besides while it is taken.
[[nodiscard]] i64 checkpoint_copy_bytes(const RankRuntime& runtime);

}  // namespace moesaic
