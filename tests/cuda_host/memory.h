// The emulated GPU's memory: one range of addresses, so that device pointers can be told from host pointers.
#pragma once

#include <cstddef>
#include <map>

namespace cuda_host {

/// Blocks have guard zones around them, which AddressSanitizer watches, and begin as 0xFF: NaN and -1.
class DeviceMemory {
  public:
    static DeviceMemory& instance();
    /// Null where the range is used up.
    void* allocate(std::size_t bytes);
    /// False if no block begins there.
    bool release(void* data);
    [[nodiscard]] bool owns(const void* data) const;
    /// Whether [data, data + bytes) is part of one block.
    [[nodiscard]] bool contains(const void* data, std::size_t bytes) const;
    [[nodiscard]] std::size_t blocks() const { return used_.size(); }

  private:
    DeviceMemory();
    char* range_ = nullptr;
    std::size_t next_ = 0;
    std::map<std::size_t, std::size_t> used_;       // offset -> bytes
    std::multimap<std::size_t, std::size_t> free_;  // bytes with guards -> offset
};

}  // namespace cuda_host
