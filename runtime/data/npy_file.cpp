// Token ids in an array of NumPy: one dimension of ids, or two, each row a document.
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/npy.h"
#include "runtime/data/token_file.h"

namespace moesaic {

namespace {

/// What the header says; source: NumPy's format page (numpy.lib.format).
struct Header {
    std::string_view dictionary;
    i64 data_at = 0;
};

[[noreturn]] void fail(const std::string& path, i64 byte, const std::string& what,
                       const char* remedy = "save the array again with numpy.save") {
    throw UserError(fmt::format("{}: byte {}: {}; {}", path, byte, what, remedy));
}

Header read_header(const MappedFile& file) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(file.data());
    const auto size = static_cast<i64>(file.size());
    if (size < 10 || std::memcmp(bytes, "\x93NUMPY", 6) != 0) fail(file.path(), 0, "is no array of NumPy");
    const int version = bytes[6];
    if (version < 1 || version > 3)
        fail(file.path(), 6, fmt::format("version {} of the format, where 1 to 3 are known", version));
    const i64 text_at = version == 1 ? 10 : 12;
    if (size < text_at) fail(file.path(), size, "ends within the header");
    i64 length = bytes[8] + 256 * bytes[9];
    if (version > 1) length += (i64{bytes[10]} << 16) + (i64{bytes[11]} << 24);
    if (length > size - text_at)
        fail(file.path(), 8, fmt::format("a header of {} bytes passes the end", length));
    return {
        std::string_view(reinterpret_cast<const char*>(bytes) + text_at, static_cast<std::size_t>(length)),
        text_at + length};
}

/// The text behind 'key': in the dictionary, without the spaces before it.
std::string_view value_of(const std::string& path, const Header& header, std::string_view key) {
    for (const char quote : {'\'', '"'}) {
        const std::string quoted = fmt::format("{}{}{}", quote, key, quote);
        const std::size_t at = header.dictionary.find(quoted);
        if (at == std::string_view::npos) continue;
        std::string_view rest = header.dictionary.substr(at + quoted.size());
        const std::size_t colon = rest.find_first_not_of(' ');
        if (colon == std::string_view::npos || rest[colon] != ':') continue;
        rest.remove_prefix(colon + 1);
        rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
        return rest;
    }
    fail(path, 10, fmt::format("the header has no '{}'", key));
}

IdType type_of(const std::string& path, std::string_view descr) {
    struct Known {
        std::string_view kind;
        IdType type;
    };
    static constexpr std::array<Known, 8> kKnown{{{"u1", IdType::uint8},
                                                  {"i1", IdType::int8},
                                                  {"u2", IdType::uint16},
                                                  {"i2", IdType::int16},
                                                  {"u4", IdType::uint32},
                                                  {"i4", IdType::int32},
                                                  {"u8", IdType::uint64},
                                                  {"i8", IdType::int64}}};
    for (const Known& one : kKnown) {
        if (descr.size() < 5 || descr.substr(2, 2) != one.kind || descr[4] != descr[0]) continue;
        const bool single = size_of(one.type) == 1;
        if (descr[1] == '<' || descr[1] == '=' || (single && (descr[1] == '|' || descr[1] == '>')))
            return one.type;
    }
    fail(path, 10, fmt::format("elements of type {} are no little-endian integers", descr),
         "convert them first, e.g. with .astype('<u2') or .astype('<i4')");
}

/// "(3, 4)" or "(12,)".
std::vector<i64> shape_of(const std::string& path, std::string_view text, std::size_t most_dimensions) {
    std::vector<i64> shape;
    const std::size_t close = text.find(')');
    if (text.empty() || text[0] != '(' || close == std::string_view::npos)
        fail(path, 10, "the header has no shape");
    for (std::size_t at = 1; at < close;) {
        if (text[at] == ' ' || text[at] == ',') {
            ++at;
            continue;
        }
        i64 extent = -1;
        const auto [end, error] = std::from_chars(text.data() + at, text.data() + close, extent);
        if (error != std::errc() || extent < 0)
            fail(path, 10, fmt::format("the shape {} is unreadable", text.substr(0, close + 1)));
        shape.push_back(extent);
        at = static_cast<std::size_t>(end - text.data());
    }
    if (shape.empty() || shape.size() > most_dimensions)
        fail(path, 10, fmt::format("an array of {} dimensions", shape.size()),
             most_dimensions > 2 ? "too many"
                                 : "token ids have one dimension, or two with a document in each row");
    return shape;
}

/// Rows of equal length, each a document.
class IdRows final : public TokenFile {
  public:
    IdRows(IdArray ids, i64 columns) : ids_(std::move(ids)), columns_(columns) {}

    [[nodiscard]] i64 tokens() const override { return ids_.count(); }
    void read(i64 first, i64 count, i32* out) const override { ids_.read(first, count, out); }
    void document_starts(i64 first, i64 count, std::vector<i64>& starts) const override {
        for (i64 row = (first + columns_ - 1) / columns_; row * columns_ < first + count; ++row)
            starts.push_back(row * columns_);
    }
    [[nodiscard]] std::string documents_by() const override {
        return fmt::format("each row of {} tokens is a document", columns_);
    }
    [[nodiscard]] std::string layout() const override {
        return fmt::format("NumPy array of two dimensions, {}", name_of(ids_.type()));
    }

  private:
    IdArray ids_;
    i64 columns_;
};

}  // namespace

NpyArray open_npy_array(const std::string& path, std::size_t most_dimensions) {
    NpyArray array{MappedFile(path), 0, {}, {}};
    const Header header = read_header(array.file);
    array.data_at = header.data_at;
    const std::string_view descr = value_of(path, header, "descr");
    array.descr = descr.substr(0, std::min<std::size_t>(descr.size(), 5));  // '<u2'
    const bool row_major = value_of(path, header, "fortran_order").starts_with("False");
    array.shape = shape_of(path, value_of(path, header, "shape"), most_dimensions);
    if (!row_major && array.shape.size() > 1)
        fail(path, 10, "the array lies in Fortran's order", "save numpy.ascontiguousarray of it");
    return array;
}

i64 expect_npy_elements(const NpyArray& array, i64 size) {
    const auto bytes = static_cast<i64>(array.file.size());
    const i64 room = (bytes - array.data_at) / size;
    i64 count = 1;
    for (const i64 extent : array.shape) {
        if (extent > 0 && count > room / extent)
            fail(array.file.path(), 10,
                 fmt::format("the shape promises more than the {} elements that follow", room));
        count *= extent;
    }
    const i64 end = array.data_at + count * size;
    if (end != bytes)
        fail(array.file.path(), end, fmt::format("the array ends here, the file has {} bytes", bytes));
    return count;
}

NpyIds map_npy_ids(const std::string& path, i64 vocabulary, std::size_t most_dimensions,
                   std::string refusal) {
    NpyArray array = open_npy_array(path, most_dimensions);
    const IdType type = type_of(path, array.descr);
    const i64 count = expect_npy_elements(array, size_of(type));
    return {IdArray(std::move(array.file), array.data_at, count, type, vocabulary, std::move(refusal)),
            array.shape};
}

TokenRows read_token_rows(const std::string& path) {
    const auto [ids, shape] = map_npy_ids(path, std::numeric_limits<i32>::max());
    TokenRows rows{shape.size() == 2 ? shape[0] : 1, shape.back(), {}};
    rows.ids.resize(static_cast<std::size_t>(ids.count()));
    ids.read(0, ids.count(), rows.ids.data());
    return rows;
}

std::unique_ptr<TokenFile> open_npy_file(const std::string& path, const TokenFileOptions& options) {
    auto [ids, shape] = map_npy_ids(path, options.vocabulary);
    if (shape.size() == 2 && ids.count() > 0) return std::make_unique<IdRows>(std::move(ids), shape[1]);
    const std::string layout = fmt::format("NumPy array, {}", name_of(ids.type()));
    return make_separated_ids(std::move(ids), options.end_of_document, layout);
}

}  // namespace moesaic
