#include "runtime/data/npy.h"

#include <bit>

#include "runtime/base/error.h"

namespace moesaic {

std::string npy_header(const std::string& descr, const std::vector<i64>& shape) {
    std::string extents;
    for (const i64 extent : shape) extents += fmt::format("{},", extent);
    std::string header =
        fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, extents);
    constexpr std::size_t kPreambleBytes = 10;  // magic, version, length of the header
    const std::size_t padded = (kPreambleBytes + header.size() + 1 + 63) / 64 * 64;
    header.resize(padded - kPreambleBytes - 1, ' ');
    header += '\n';
    const auto low = static_cast<char>(header.size() & 0xff);
    const auto high = static_cast<char>(header.size() >> 8);
    return std::string("\x93NUMPY\x01\x00", 8) + low + high + header;
}

NpyWriter::NpyWriter(std::string path, const std::vector<i64>& shape, bool real)
    : file_(std::move(path)), real_(real) {
    static_assert(std::endian::native == std::endian::little, "the file says '<'");
    for (const i64 extent : shape) missing_elements_ *= extent;
    file_.write(npy_header(real ? "<f4" : "<i4", shape));
}

void NpyWriter::append_bytes(const void* data, std::size_t elements, bool real) {
    MOESAIC_ASSERT(real == real_, "{}: declared as {}", file_.path(), real_ ? "float32" : "int32");
    missing_elements_ -= static_cast<i64>(elements);
    MOESAIC_ASSERT(missing_elements_ >= 0, "{}: {} elements too many", file_.path(), -missing_elements_);
    file_.write(data, elements * 4);
}

void NpyWriter::append(std::span<const i32> values) {
    append_bytes(values.data(), values.size(), false);
}

void NpyWriter::append(std::span<const float> values) {
    append_bytes(values.data(), values.size(), true);
}

void NpyWriter::finish() {
    MOESAIC_ASSERT(missing_elements_ == 0, "{}: {} elements are missing", file_.path(), missing_elements_);
    file_.commit();
}

void write_npy(const std::string& path, std::span<const i32> values, const std::vector<i64>& shape) {
    NpyWriter writer(path, shape);
    writer.append(values);
    writer.finish();
}

}  // namespace moesaic
