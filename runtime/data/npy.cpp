#include "runtime/data/npy.h"

#include <bit>
#include <utility>

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

NpyWriter::NpyWriter(std::string path, const std::vector<i64>& shape) : file_(std::move(path)) {
    static_assert(std::endian::native == std::endian::little, "the file says '<i4'");
    for (const i64 extent : shape) missing_elements_ *= extent;
    file_.write(npy_header("<i4", shape));
}

void NpyWriter::append(std::span<const i32> values) {
    missing_elements_ -= static_cast<i64>(values.size());
    MOESAIC_ASSERT(missing_elements_ >= 0, "{}: {} elements too many", file_.path(), -missing_elements_);
    file_.write(values.data(), values.size_bytes());
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
