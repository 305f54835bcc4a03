// Reading and writing of safetensors files (https://huggingface.co/docs/safetensors).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/atomic_file.h"
#include "runtime/base/checksum.h"
#include "runtime/base/mapped_file.h"
#include "runtime/tensor.h"

namespace moesaic {

/// One tensor of a file. `data` points into the mapping and need not be aligned for its type.
struct SafetensorsEntry {
    std::string name;
    std::string dtype_name;      ///< as in the file, e.g. "F32", "F16"
    std::optional<DType> dtype;  ///< empty for types that Moesaic only passes on as bytes
    std::vector<i64> shape;
    const std::byte* data = nullptr;
    i64 bytes = 0;

    [[nodiscard]] i64 elements() const;
    [[nodiscard]] std::string shape_text() const;  ///< e.g. "[128,64]"
    [[nodiscard]] bool aligned() const;
    /// The same as a view, where the type is known, the data aligned and the shape has at most three
    /// dimensions; otherwise an Error. A scalar has shape [1].
    [[nodiscard]] ConstTensorView view() const;
};

/// A safetensors file in memory. Nothing of it is used before all of it was checked: the header, each type,
/// shape and offset, and that the tensors fill the rest of the file without gap or overlap.
class SafetensorsFile {
  public:
    /// No such file is a UserError; a damaged one an Error that says what is wrong with it.
    [[nodiscard]] static SafetensorsFile open(const std::string& path);

    [[nodiscard]] const std::vector<SafetensorsEntry>& entries() const { return entries_; }  ///< as they lie
    /// Null where there is no such tensor.
    [[nodiscard]] const SafetensorsEntry* find(std::string_view name) const;
    /// As find; a missing tensor is an Error.
    [[nodiscard]] const SafetensorsEntry& at(std::string_view name) const;
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
    [[nodiscard]] const std::string& path() const { return file_.path(); }
    [[nodiscard]] i64 bytes() const { return static_cast<i64>(file_.size()); }
    /// Of the complete file; reads all of it.
    [[nodiscard]] u64 checksum() const { return checksum_of(file_.data(), file_.size()); }

  private:
    MappedFile file_;
    std::vector<SafetensorsEntry> entries_;
    std::unordered_map<std::string_view, std::size_t> index_;
    std::map<std::string, std::string> metadata_;
};

/// Writes one file: declare every tensor, then give the data of each in the order that order() says. The file
/// appears under its name when finish() returns; an Error (a full disk) or a dropped writer leaves nothing.
class SafetensorsWriter {
  public:
    struct Summary {
        i64 bytes = 0;
        u64 checksum = 0;  ///< XXH64 of the complete file
    };

    explicit SafetensorsWriter(std::string path, std::map<std::string, std::string> metadata = {});
    void declare(std::string name, DType dtype, std::vector<i64> shape);
    void declare(std::string name, DType dtype, const Shape& shape);
    /// Also for types without a DType, e.g. "F16".
    void declare_raw(std::string name, std::string dtype_name, std::vector<i64> shape);
    /// Names in the order of writing: larger element types first, so that all data is aligned, else as
    /// declared. Ends the declarations.
    [[nodiscard]] const std::vector<std::string>& order();
    /// The next piece of the tensor that is due; any number of pieces.
    void append(std::string_view name, const void* data, i64 bytes);
    /// A whole tensor of the declared type and size, in host memory.
    void write(std::string_view name, const ConstTensorView& tensor);
    Summary finish();

  private:
    struct Declared {
        std::string name, dtype_name;
        std::vector<i64> shape;
        i64 element_bytes = 0;
        i64 bytes = 0;
    };

    std::string path_;
    std::map<std::string, std::string> metadata_;
    std::vector<Declared> declared_;
    std::vector<std::string> order_;
    std::optional<AtomicFile> file_;  // open from the first byte on
    Checksum checksum_;
    std::size_t current_ = 0;  // the tensor that is due, and how much of it is there
    i64 current_bytes_ = 0;

    void begin();
    void emit(const void* data, std::size_t bytes);
    void skip_complete();
};

namespace detail {

struct SafetensorsHeader {
    struct Tensor {
        std::string name, dtype_name;
        std::vector<i64> shape;
        u64 begin = 0, end = 0;  ///< in bytes after the header
    };
    std::vector<Tensor> tensors;
    std::map<std::string, std::string> metadata;
};
/// Checks the form of the header's JSON alone; what is wrong is an Error that begins with `path`.
[[nodiscard]] SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view json);

/// A name out of a file, fit to be shown: shortened, without control characters.
[[nodiscard]] std::string shown_name(std::string_view name);
[[nodiscard]] std::optional<DType> dtype_of_safetensors(std::string_view name);
[[nodiscard]] std::string_view safetensors_name_of(DType dtype);
/// Bytes of one element; 0 for an unknown type.
[[nodiscard]] i64 safetensors_element_bytes(std::string_view name);
/// Product of the extents times `element_bytes`; empty when it, or the product of the extents that are not
/// zero, does not fit into 63 bits.
[[nodiscard]] std::optional<i64> checked_bytes(const std::vector<i64>& shape, i64 element_bytes);

}  // namespace detail

}  // namespace moesaic
