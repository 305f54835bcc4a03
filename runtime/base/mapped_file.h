// A whole file as read-only memory.
#pragma once

#include <cstddef>
#include <string>

namespace moesaic {

/// Owns the mapping; pages are read from disk when they are touched. A file that shrinks while it is mapped
/// ends the process, so only files that are replaced as a whole (by renaming) should be mapped.
class MappedFile {
  public:
    MappedFile() = default;
    /// A path that names no readable regular file is a UserError; what the system refuses afterwards an
    /// Error.
    explicit MappedFile(const std::string& path);
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    [[nodiscard]] const std::byte* data() const { return data_; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace moesaic
