// Writing of NumPy's .npy files: arrays of 32-bit integers for `data dump`, headers for token files.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/atomic_file.h"

namespace moesaic {

/// The header of a .npy file (format version 1.0) in C order with elements of type `descr`, e.g. "<i4": 128
/// bytes for shapes of a few extents.
[[nodiscard]] std::string npy_header(const std::string& descr, const std::vector<i64>& shape);

/// Writes an int32 array in C order (format version 1.0) piece by piece; the file appears under its name when
/// finish() returns. A failure is an Error, and nothing is left.
class NpyWriter {
  public:
    NpyWriter(std::string path, const std::vector<i64>& shape);
    void append(std::span<const i32> values);
    /// All elements that the shape promises must be there.
    void finish();

  private:
    AtomicFile file_;
    i64 missing_elements_ = 1;
};

void write_npy(const std::string& path, std::span<const i32> values, const std::vector<i64>& shape);

}  // namespace moesaic
