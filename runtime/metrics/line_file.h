// A text file that only grows, by whole lines.
#pragma once

#include "runtime/metrics/append_file.h"

namespace moesaic {

class LineFile : public AppendFile {
  public:
    /// With `keep`, goes on after what is there; a last line without a line break is cut off.
    LineFile(std::string path, bool keep) : AppendFile(std::move(path), keep) {
        if (keep) cut_torn_line();
    }

    void append(std::string line) {  ///< without line break
        append_bytes(line += '\n');
    }
};

}  // namespace moesaic
