// A file that only grows.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

/// What was appended is in the file when append_bytes() returns, so that others may follow it. Failures are
/// Errors that name the file.
class AppendFile {
  public:
    /// With `keep`, goes on after what is there.
    AppendFile(std::string path, bool keep);
    AppendFile(const AppendFile&) = delete;
    AppendFile& operator=(const AppendFile&) = delete;
    ~AppendFile();

    void append_bytes(std::string_view bytes);
    void sync();  ///< brings the file to disk
    [[nodiscard]] bool empty() const { return bytes_ == 0; }
    [[nodiscard]] const std::string& path() const { return path_; }

  protected:
    /// Removes what stands behind the last line break.
    void cut_torn_line();

  private:
    std::string path_;
    int descriptor_ = -1;
    i64 bytes_ = 0;
};

}  // namespace moesaic
