// Files that appear under their name complete, or not at all.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

/// Writes to `PATH.partial`; commit() brings it to disk and renames it to PATH. Without commit (an error, an
/// exception) the partial file is removed and a file that had this name before stays as it was. Every failure
/// is an Error with the path and the system's reason.
class AtomicFile {
  public:
    explicit AtomicFile(std::string path);
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile();

    void write(const void* data, std::size_t bytes);
    void write(std::string_view text) { write(text.data(), text.size()); }
    /// Replaces bytes that were written already, for headers that count what follows them.
    void rewrite(i64 offset, std::string_view text);
    void commit();
    [[nodiscard]] i64 bytes_written() const { return bytes_written_; }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_, partial_path_;
    int descriptor_ = -1;
    i64 bytes_written_ = 0;

    [[noreturn]] void fail(std::string_view action, int code);
    void discard() noexcept;
};

/// Brings names made, renamed or removed in a folder to disk; file systems that cannot are left alone.
void sync_directory(const std::string& folder);

/// The complete text of a file under its name, or an Error.
void write_file_atomically(const std::string& path, std::string_view text);

}  // namespace moesaic
