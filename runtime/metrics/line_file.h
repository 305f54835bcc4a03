// A text file that only grows, by whole lines.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

/// Each line is in the file when append() returns, so that others may follow it. Failures are Errors.
class LineFile {
  public:
    /// With `keep`, goes on after what is there; a last line without a line break is cut off.
    LineFile(std::string path, bool keep);
    LineFile(const LineFile&) = delete;
    LineFile& operator=(const LineFile&) = delete;
    ~LineFile();

    void append(std::string line);  ///< without line break
    void sync();                    ///< brings the file to disk
    [[nodiscard]] bool empty() const { return bytes_ == 0; }

  private:
    std::string path_;
    int descriptor_ = -1;
    i64 bytes_ = 0;

    void cut_torn_line();
};

}  // namespace moesaic
