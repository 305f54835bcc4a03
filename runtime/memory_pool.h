// A caching pool of memory blocks: after warm-up a training step takes every block from here, none from the
// system.
#pragma once

#include <map>
#include <vector>

#include "runtime/tensor.h"

namespace moesaic {

/// Blocks of one device for one rank. Not thread-safe: only the rank's main thread allocates.
///
/// Reuse is ordered by stream: a block that is given back may be handed out at once, and work enqueued later
/// on the same stream sees it in order. Work of another stream has to be waited for (Stream::wait) before the
/// block is given back. `poison` fills every block with a NaN pattern as it is handed out (not for deferred
/// streams, whose queued work may still read it).
class MemoryPool {
  public:
    struct Block {
        void* data = nullptr;
        i64 bytes = 0;  ///< capacity, at least what was asked for
    };

    explicit MemoryPool(Device device = Device::cpu, bool poison = false)
        : device_(device), poison_(poison) {}
    MemoryPool(const MemoryPool&) = delete;
    MemoryPool& operator=(const MemoryPool&) = delete;
    virtual ~MemoryPool();

    /// A block of at least `bytes`, aligned to 64 bytes; throws Error with the size and what is in use when
    /// the system refuses.
    [[nodiscard]] Block take(i64 bytes);
    void give_back(Block block) noexcept;

    [[nodiscard]] Device device() const { return device_; }
    /// Blocks taken from the system so far; constant after warm-up.
    [[nodiscard]] i64 fresh_allocations() const { return fresh_allocations_; }
    [[nodiscard]] i64 bytes_in_use() const { return bytes_in_use_; }
    [[nodiscard]] i64 peak_bytes_in_use() const { return peak_bytes_in_use_; }
    /// Bytes held from the system, in use or cached.
    [[nodiscard]] i64 bytes_reserved() const { return bytes_reserved_; }

  private:
    Device device_;
    bool poison_;
    std::multimap<i64, void*> free_;  // capacity -> block
    i64 fresh_allocations_ = 0, bytes_in_use_ = 0, peak_bytes_in_use_ = 0, bytes_reserved_ = 0;
};

}  // namespace moesaic
