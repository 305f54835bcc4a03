// The emulated GPU's memory: one range of addresses, so that device pointers can be told from host pointers.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace cuda_host {

/// What memory holds before anything is written: NaN in every floating type, and numbers that are no index
/// and that no host writes either, which tells what is unwritten from what a host wrote.
void fill_with_poison(void* data, std::size_t bytes);
/// Whether these bytes hold nothing else.
[[nodiscard]] bool is_poison(const void* data, std::size_t bytes);

/// Blocks have guard zones around them, which AddressSanitizer watches, and begin as poison.
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
    [[nodiscard]] const char* begin() const { return range_; }
    /// "8 bytes after the end of a block of 400 bytes".
    [[nodiscard]] std::string where(const void* data) const;
    template <class Call>
    void for_each_block(const Call& call) const {
        for (const auto& [offset, bytes] : used_) call(range_ + offset, bytes);
    }

  private:
    DeviceMemory();
    char* range_ = nullptr;
    std::size_t next_ = 0;
    std::map<std::size_t, std::size_t> used_;       // offset -> bytes
    std::multimap<std::size_t, std::size_t> free_;  // bytes with guards -> offset
};

}  // namespace cuda_host
