// A GPU's rows on their way through the host: copies in memory that both sides reach at full speed.
#pragma once

#include <map>

#include "runtime/device_memory.h"
#include "runtime/stream.h"

namespace moesaic {

/// Blocks of a device's staging memory: after warm-up they come from here, none from the system. Used by the
/// thread that calls the verbs.
class StagingPool {
  public:
    StagingPool() = default;
    ~StagingPool();
    StagingPool(const StagingPool&) = delete;
    StagingPool& operator=(const StagingPool&) = delete;

    /// At least `bytes`, which is left in `bytes`. Throws Error where there is no more.
    [[nodiscard]] void* take(DeviceMemorySource& source, i64& bytes);
    void give_back(void* data, i64 bytes) { free_.emplace(bytes, data); }

  private:
    DeviceMemorySource* source_ = nullptr;
    std::multimap<i64, void*> free_;  // bytes -> block
};

/// An operand of a verb where the host reads and writes it: itself, or, of a GPU's memory on a GPU's stream,
/// a copy.
class StagedRows {
  public:
    enum class Use { read, write };

    /// Enqueues the copy of what is to be read.
    StagedRows(StagingPool& pool, Stream& stream, TensorView rows, Use use);
    ~StagedRows();
    StagedRows(const StagedRows&) = delete;
    StagedRows& operator=(const StagedRows&) = delete;

    [[nodiscard]] void* data() const { return copy_ ? copy_ : rows_.data; }
    /// After the verb: what it wrote is where it belongs when this returns.
    void finish();

  private:
    StagingPool& pool_;
    Stream& stream_;
    TensorView rows_;
    Use use_;
    DeviceMemorySource* source_ = nullptr;
    void* copy_ = nullptr;
    i64 capacity_ = 0;
};

}  // namespace moesaic
