#include "runtime/data/id_array.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr i64 kCheckedAtOnceBytes = i64{64} << 20;
constexpr i64 kBlock = 1 << 16;  // ids checked at a time

struct Facts {
    i64 bytes;
    std::string_view name;
};
constexpr std::array<Facts, 8> kFacts{{{1, "uint8"},
                                       {1, "int8"},
                                       {2, "uint16"},
                                       {2, "int16"},
                                       {4, "uint32"},
                                       {4, "int32"},
                                       {8, "uint64"},
                                       {8, "int64"}}};

}  // namespace

i64 size_of(IdType type) {
    return kFacts[static_cast<std::size_t>(type)].bytes;
}
std::string_view name_of(IdType type) {
    return kFacts[static_cast<std::size_t>(type)].name;
}

IdArray::IdArray(MappedFile file, i64 offset, i64 count, IdType type, i64 vocabulary, std::string refusal)
    : file_(std::move(file)),
      offset_(offset),
      count_(count),
      type_(type),
      vocabulary_(vocabulary),
      refusal_(std::move(refusal)) {
    static_assert(std::endian::native == std::endian::little, "ids are read as they lie in the file");
    MOESAIC_ASSERT(
        0 <= offset && 0 <= count && offset + count * size_of(type) <= static_cast<i64>(file_.size()),
        "{}: {} ids of {} bytes from {} on in {} bytes", path(), count, size_of(type), offset, file_.size());
    if (count * size_of(type) > kCheckedAtOnceBytes) return;
    std::vector<i32> block(static_cast<std::size_t>(std::min(kBlock, count)));
    for (i64 first = 0; first < count; first += kBlock) {
        read(first, std::min(kBlock, count - first), block.data());
    }
}

void IdArray::read(i64 first, i64 count, i32* out) const {
    MOESAIC_ASSERT(0 <= first && 0 <= count && first + count <= count_, "ids {} to {} of {}", first,
                   first + count, count_);
    switch (type_) {
        case IdType::uint8:
            return read_as<std::uint8_t>(first, count, out);
        case IdType::int8:
            return read_as<std::int8_t>(first, count, out);
        case IdType::uint16:
            return read_as<std::uint16_t>(first, count, out);
        case IdType::int16:
            return read_as<std::int16_t>(first, count, out);
        case IdType::uint32:
            return read_as<std::uint32_t>(first, count, out);
        case IdType::int32:
            return read_as<std::int32_t>(first, count, out);
        case IdType::uint64:
            return read_as<std::uint64_t>(first, count, out);
        case IdType::int64:
            return read_as<std::int64_t>(first, count, out);
    }
}

template <class Integer>
void IdArray::read_as(i64 first, i64 count, i32* out) const {
    const std::byte* const bytes = file_.data() + offset_ + first * static_cast<i64>(sizeof(Integer));
    const auto at = [bytes](i64 i) {
        Integer value;  // the file may hold it at any alignment
        std::memcpy(&value, bytes + i * static_cast<i64>(sizeof(Integer)), sizeof(Integer));
        return value;
    };
    // Negative values count as very large ones, so that one comparison finds both.
    const auto limit = static_cast<u64>(vocabulary_);
    bool outside = false;
    for (i64 i = 0; i < count; ++i) {
        const Integer value = at(i);
        outside |= static_cast<u64>(value) >= limit;
        out[i] = static_cast<i32>(value);
    }
    if (!outside) return;
    i64 wrong = 0;
    while (static_cast<u64>(at(wrong)) < limit) ++wrong;
    const i64 token = first + wrong;
    if (!refusal_.empty())
        throw UserError(fmt::format("{}: byte {}: element {} is {}; {}", path(),
                                    offset_ + token * static_cast<i64>(sizeof(Integer)), token, at(wrong),
                                    refusal_));
    throw UserError(fmt::format(
        "{}: byte {}: token {} has id {}, outside of the vocabulary of {} (0 to {}); set task.data.tokenizer "
        "or "
        "task.data.vocabulary to what the file was made with, or task.data.token_type to the type of its ids "
        "(here {})",
        path(), offset_ + token * static_cast<i64>(sizeof(Integer)), token, at(wrong), vocabulary_,
        vocabulary_ - 1, name_of(type_)));
}

}  // namespace moesaic
