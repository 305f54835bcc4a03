// Token ids as integers of some width in a mapped file.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/mapped_file.h"
#include "runtime/base/types.h"

namespace moesaic {

enum class IdType : std::uint8_t { uint8, int8, uint16, int16, uint32, int32, uint64, int64 };
[[nodiscard]] i64 size_of(IdType type);
/// "uint16", as NumPy calls it.
[[nodiscard]] std::string_view name_of(IdType type);
/// The narrowest type that token files use for ids of this vocabulary: uint16 below `limit`, else `wide`.
[[nodiscard]] constexpr IdType id_type_of(i64 vocabulary, i64 limit, IdType wide) {
    return vocabulary < limit ? IdType::uint16 : wide;
}

/// `count` little-endian integers from byte `offset` on, at any alignment. Immutable: threads may share it.
class IdArray {
  public:
    IdArray() = default;
    /// The array lies within the file; that is the caller's to check. Ids of files up to 64 MiB are all
    /// checked here, so that a run does not find a wrong one after hours; ids of larger files when they are
    /// read.
    /// Where ids are not those of tokens, `refusal` says what a wrong one means.
    IdArray(MappedFile file, i64 offset, i64 count, IdType type, i64 vocabulary, std::string refusal = {});

    [[nodiscard]] i64 count() const { return count_; }
    [[nodiscard]] IdType type() const { return type_; }
    [[nodiscard]] const std::string& path() const { return file_.path(); }
    /// Writes ids [first, first + count) to `out`. UserError with file, byte, token and value where one is
    /// not in [0, vocabulary).
    void read(i64 first, i64 count, i32* out) const;

  private:
    template <class Integer>
    void read_as(i64 first, i64 count, i32* out) const;

    MappedFile file_;
    i64 offset_ = 0, count_ = 0;
    IdType type_ = IdType::uint16;
    i64 vocabulary_ = 0;
    std::string refusal_;
};

}  // namespace moesaic
