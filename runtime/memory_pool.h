// A caching pool of memory blocks: after warm-up a training step takes every block from here, none from the
// system.
#pragma once

#include <array>
#include <map>
#include <vector>

#include "runtime/tensor.h"

namespace moesaic {

/// What memory is for, as `train --check` lists it.
enum class MemoryUse : std::uint8_t {
    activations,  ///< and gradients of activations: all that is not named below
    weights,
    gradients,      ///< of one micro-batch
    gradient_sums,  ///< f64, over micro-batches; none where gradients are their own (ParameterStore)
    masters,        ///< f32 weights behind bf16 ones
    moments,
    exchange,  ///< rows and gradients on their way between ranks
    widened,   ///< operands of a product in the form that it computes with
    packed,    ///< copies of weights in the order in which products read them
    count
};
inline constexpr std::size_t kMemoryUses = static_cast<std::size_t>(MemoryUse::count);
/// Bytes by use.
using MemoryByUse = std::array<i64, kMemoryUses>;

/// How a pool gets its blocks.
enum class PoolMode : std::uint8_t {
    usual,
    poison,         ///< every block is filled with a NaN pattern as it is handed out
    address_space,  ///< blocks cost no memory until they are written to: for dry runs
};

/// Blocks of one device for one rank. Not thread-safe: only the rank's main thread allocates.
///
/// Reuse is ordered by stream: a block that is given back may be handed out at once, and work enqueued later
/// on the same stream sees it in order. Work of another stream has to be waited for (Stream::wait) before the
/// block is given back. PoolMode::poison is not for deferred streams, whose queued work may still read a
/// block.
class MemoryPool {
  public:
    struct Block {
        void* data = nullptr;
        i64 bytes = 0;  ///< capacity, at least what was asked for
        MemoryUse use = MemoryUse::activations;
    };

    explicit MemoryPool(Device device = Device::cpu, PoolMode mode = PoolMode::usual)
        : device_(device), mode_(mode) {}
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
    /// What was in use for what when most was.
    [[nodiscard]] const MemoryByUse& peak_by_use() const { return peak_by_use_; }
    /// Bytes held from the system, in use or cached.
    [[nodiscard]] i64 bytes_reserved() const { return bytes_reserved_; }

  private:
    friend class MemoryUseScope;
    [[nodiscard]] void* from_system(i64 bytes) const;
    void to_system(void* data, i64 bytes) const;

    Device device_;
    PoolMode mode_;
    MemoryUse use_ = MemoryUse::activations;
    MemoryByUse in_use_by_use_{}, peak_by_use_{};
    std::multimap<i64, void*> free_;  // capacity -> block
    i64 fresh_allocations_ = 0, bytes_in_use_ = 0, peak_bytes_in_use_ = 0, bytes_reserved_ = 0;
};

/// Blocks taken from `pool` during the lifetime of this are for `use`.
class MemoryUseScope {
  public:
    MemoryUseScope(MemoryPool& pool, MemoryUse use) : pool_(pool), before_(pool.use_) { pool.use_ = use; }
    ~MemoryUseScope() { pool_.use_ = before_; }
    MemoryUseScope(const MemoryUseScope&) = delete;
    MemoryUseScope& operator=(const MemoryUseScope&) = delete;

  private:
    MemoryPool& pool_;
    MemoryUse before_;
};

}  // namespace moesaic
