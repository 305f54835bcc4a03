#include "runtime/data/npy.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/mapped_file.h"

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

namespace {

/// The whole numbers between the parentheses behind 'shape'.
std::vector<i64> extents_in(std::string_view header) {
    std::vector<i64> extents;
    const std::size_t at = header.find("'shape'");
    const std::size_t open = header.find('(', std::min(at, header.size()));
    const std::size_t close = header.find(')', std::min(open, header.size()));
    if (close == std::string_view::npos) return {};
    for (const char* next = header.data() + open + 1; next < header.data() + close;) {
        i64 extent = 0;
        const auto [end, error] = std::from_chars(next, header.data() + close, extent);
        if (error == std::errc() && extent >= 0) extents.push_back(extent);
        next = error == std::errc() ? end : next + 1;
    }
    return extents;
}

template <class Integer>
void read_ids(const std::string& path, const std::byte* data, std::vector<i32>& ids) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
        Integer value;
        std::memcpy(&value, data + i * sizeof value, sizeof value);
        if (!std::in_range<i32>(value))
            throw UserError(fmt::format("{}: element {} is {}: no token has such a number", path, i, value));
        ids[i] = static_cast<i32>(value);
    }
}

}  // namespace

TokenRows read_token_rows(const std::string& path) {
    const MappedFile file(path);
    const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
    const auto refuse = [&](const char* what) {
        return UserError(
            fmt::format("{}: {}; save int32 or int64 [sequences, tokens] with numpy.save", path, what));
    };
    if (!bytes.starts_with(std::string_view("\x93NUMPY\x01", 7)) || bytes.size() < 10)
        throw refuse("is no .npy file of version 1");
    const std::size_t length =
        static_cast<unsigned char>(bytes[8]) + 256U * static_cast<unsigned char>(bytes[9]);
    if (length > bytes.size() - 10) throw refuse("ends within its header");
    const std::string_view header = bytes.substr(10, length);
    const std::size_t width = header.find("'<i4'") != std::string_view::npos   ? 4
                              : header.find("'<i8'") != std::string_view::npos ? 8
                                                                               : 0;
    std::vector<i64> extents = extents_in(header);
    if (extents.size() == 1) extents.insert(extents.begin(), 1);
    if (width == 0 || extents.size() != 2 || header.find("'fortran_order': False") == std::string_view::npos)
        throw refuse("holds no rows of whole numbers");
    i64 size = static_cast<i64>(width);
    for (const i64 extent : extents)
        if (__builtin_mul_overflow(size, extent, &size)) throw refuse("has an impossible shape");
    if (size != static_cast<i64>(bytes.size() - 10 - length))
        throw refuse("has not the bytes that its shape asks for");
    TokenRows rows{extents[0], extents[1], std::vector<i32>(static_cast<std::size_t>(size) / width)};
    const std::byte* data = file.data() + 10 + length;
    width == 4 ? read_ids<i32>(path, data, rows.ids) : read_ids<i64>(path, data, rows.ids);
    return rows;
}

}  // namespace moesaic
