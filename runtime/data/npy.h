// NumPy's .npy files: token ids in and out, logits out, headers for token files.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/atomic_file.h"
#include "runtime/base/mapped_file.h"
#include "runtime/base/types.h"
#include "runtime/data/id_array.h"

namespace moesaic {

/// The header of a .npy file (format version 1.0) in C order with elements of type `descr`, e.g. "<i4": 128
/// bytes for shapes of a few extents.
[[nodiscard]] std::string npy_header(const std::string& descr, const std::vector<i64>& shape);

/// Writes an int32 or float32 array in C order (format version 1.0) piece by piece; the file appears under
/// its name when finish() returns. A failure is an Error, and nothing is left.
class NpyWriter {
  public:
    NpyWriter(std::string path, const std::vector<i64>& shape, bool real = false);
    void append(std::span<const i32> values);
    void append(std::span<const float> values);
    /// All elements that the shape promises must be there.
    void finish();

  private:
    AtomicFile file_;
    bool real_;
    i64 missing_elements_ = 1;
    void append_bytes(const void* data, std::size_t elements, bool real);
};

/// Token ids of one dimension, or of two: a row is a document or a sequence. Other numbers in as many as
/// asked for.
struct NpyIds {
    IdArray ids;
    std::vector<i64> shape;
};
/// Maps an array of little-endian integers of any width. UserError with the byte where it is anything else or
/// damaged or has more dimensions, and as IdArray has it.
[[nodiscard]] NpyIds map_npy_ids(const std::string& path, i64 vocabulary, std::size_t most_dimensions = 2,
                                 std::string refusal = {});

/// A mapped array of any element type, in C order.
struct NpyArray {
    MappedFile file;
    i64 data_at = 0;    ///< where the elements begin
    std::string descr;  ///< "<f4"
    std::vector<i64> shape;
};
/// UserError with the byte where it is damaged, in Fortran's order or of more dimensions. That the elements
/// fill the file is left to whoever knows their size: expect_npy_elements.
[[nodiscard]] NpyArray open_npy_array(const std::string& path, std::size_t most_dimensions);
/// Their number; UserError where `size` bytes each do not fill the file.
[[nodiscard]] i64 expect_npy_elements(const NpyArray& array, i64 size);

/// Token ids, one sequence a row.
struct TokenRows {
    i64 rows = 0, columns = 0;
    std::vector<i32> ids;  ///< [rows, columns]
};
/// Copies [rows, columns], or [columns] as one row; UserError as map_npy_ids, and for a number outside of
/// int32.
[[nodiscard]] TokenRows read_token_rows(const std::string& path);

void write_npy(const std::string& path, std::span<const i32> values, const std::vector<i64>& shape);

}  // namespace moesaic
