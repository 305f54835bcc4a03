#include "runtime/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace moesaic {

namespace detail {

namespace {

struct ElementType {
    std::string_view name;
    i64 bytes;
    std::optional<DType> dtype;
};
constexpr std::array<ElementType, 16> kElementTypes{{
    {"F64", 8, DType::f64},
    {"F32", 4, DType::f32},
    {"BF16", 2, DType::bf16},
    {"I32", 4, DType::int32},
    {"I64", 8, DType::int64},
    {"F16", 2, {}},
    {"F8_E4M3", 1, {}},
    {"F8_E5M2", 1, {}},
    {"I8", 1, {}},
    {"U8", 1, {}},
    {"BOOL", 1, {}},
    {"I16", 2, {}},
    {"U16", 2, {}},
    {"U32", 4, {}},
    {"U64", 8, {}},
    {"C64", 8, {}},
}};

const ElementType* element_type(std::string_view name) {
    const auto* found = std::ranges::find(kElementTypes, name, &ElementType::name);
    return found == kElementTypes.end() ? nullptr : found;
}

}  // namespace

std::string shown_name(std::string_view name) {
    constexpr std::size_t kShown = 120;
    std::string text = "\"";
    for (const char letter : name.substr(0, kShown))
        text += static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f ? '?' : letter;
    return text + (name.size() > kShown ? "\"..." : "\"");
}

std::optional<DType> dtype_of_safetensors(std::string_view name) {
    const ElementType* type = element_type(name);
    return type ? type->dtype : std::nullopt;
}

std::string_view safetensors_name_of(DType dtype) {
    return std::ranges::find(kElementTypes, std::optional(dtype), &ElementType::dtype)->name;
}

i64 safetensors_element_bytes(std::string_view name) {
    const ElementType* type = element_type(name);
    return type ? type->bytes : 0;
}

std::optional<i64> checked_bytes(const std::vector<i64>& shape, i64 element_bytes) {
    i64 bytes = element_bytes;
    bool empty = false;
    for (const i64 extent : shape) {
        empty = empty || extent == 0;
        if (extent < 0 || __builtin_mul_overflow(bytes, std::max<i64>(extent, 1), &bytes)) return {};
    }
    return empty ? 0 : bytes;
}

}  // namespace detail

namespace {

// The limit of the reference implementation.
constexpr u64 kMaximumHeaderBytes = 100'000'000;

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
    throw Error(fmt::format("{}: damaged safetensors file: {}", path, what));
}

std::string_view header_of(const MappedFile& file) {
    const u64 size = file.size();
    if (size < 8) damaged(file.path(), fmt::format("it has {} bytes; a header needs at least 8", size));
    u64 length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    if (length > size - 8)
        damaged(file.path(), fmt::format("its header should have {} bytes, but the file has only {} after "
                                         "the length (truncated, or not a safetensors file)",
                                         length, size - 8));
    if (length > kMaximumHeaderBytes)
        damaged(file.path(), fmt::format("its header has {} bytes, more than the {} that are allowed", length,
                                         kMaximumHeaderBytes));
    const std::string_view header(reinterpret_cast<const char*>(file.data()) + 8, length);
    if (!header.starts_with('{')) damaged(file.path(), "its header does not begin with '{'");
    if (header.find('\0') != std::string_view::npos) damaged(file.path(), "its header holds a zero byte");
    return header;
}

SafetensorsEntry checked_entry(const std::string& path, detail::SafetensorsHeader::Tensor&& tensor,
                               const std::byte* data, u64 data_bytes) {
    const std::string name = detail::shown_name(tensor.name);
    const i64 element_bytes = detail::safetensors_element_bytes(tensor.dtype_name);
    if (element_bytes == 0)
        damaged(path, fmt::format("tensor {} has the unknown dtype {}", name,
                                  detail::shown_name(tensor.dtype_name)));
    SafetensorsEntry entry{
        std::move(tensor.name), std::move(tensor.dtype_name), {}, std::move(tensor.shape), nullptr, 0};
    entry.dtype = detail::dtype_of_safetensors(entry.dtype_name);
    const std::optional<i64> bytes = detail::checked_bytes(entry.shape, element_bytes);
    if (!bytes) damaged(path, fmt::format("tensor {} has the impossible shape {}", name, entry.shape_text()));
    if (tensor.begin > tensor.end || tensor.end > data_bytes)
        damaged(path, fmt::format("tensor {} should lie at bytes {} to {} of the data, which has {} bytes "
                                  "(truncated?)",
                                  name, tensor.begin, tensor.end, data_bytes));
    if (tensor.end - tensor.begin != static_cast<u64>(*bytes))
        damaged(path, fmt::format("tensor {} of shape {} and dtype {} needs {} bytes, but its offsets {} to "
                                  "{} span {}",
                                  name, entry.shape_text(), entry.dtype_name, *bytes, tensor.begin,
                                  tensor.end, tensor.end - tensor.begin));
    entry.data = data + tensor.begin;
    entry.bytes = *bytes;
    return entry;
}

void check_coverage(const std::string& path, const std::vector<SafetensorsEntry>& entries,
                    const std::byte* data, u64 data_bytes) {
    const std::byte* next = data;
    for (const SafetensorsEntry& entry : entries) {
        if (entry.data < next)
            damaged(path, fmt::format("tensor {} overlaps the tensor before it by {} bytes",
                                      detail::shown_name(entry.name), next - entry.data));
        if (entry.data > next)
            damaged(path, fmt::format("there is a gap of {} bytes before tensor {}", entry.data - next,
                                      detail::shown_name(entry.name)));
        next = entry.data + entry.bytes;
    }
    if (next != data + data_bytes)
        damaged(path, fmt::format("{} bytes after the last tensor belong to none", data + data_bytes - next));
}

}  // namespace

i64 SafetensorsEntry::elements() const {
    return bytes / detail::safetensors_element_bytes(dtype_name);
}

std::string SafetensorsEntry::shape_text() const {
    constexpr std::size_t kShown = 16;
    std::string text = "[";
    for (std::size_t axis = 0; axis < std::min(shape.size(), kShown); ++axis)
        text += fmt::format("{}{}", axis ? "," : "", shape[axis]);
    return text + (shape.size() > kShown ? ",...]" : "]");
}

bool SafetensorsEntry::aligned() const {
    const auto element_bytes = static_cast<std::uintptr_t>(detail::safetensors_element_bytes(dtype_name));
    return reinterpret_cast<std::uintptr_t>(data) % element_bytes == 0;
}

ConstTensorView SafetensorsEntry::view() const {
    if (!dtype)
        throw Error(fmt::format("tensor {} has dtype {}, which has no counterpart here",
                                detail::shown_name(name), dtype_name));
    if (shape.size() > 3)
        throw Error(fmt::format("tensor {} has {} dimensions; at most three are supported",
                                detail::shown_name(name), shape.size()));
    if (!aligned())
        throw Error(fmt::format("tensor {} does not lie at a multiple of its element size",
                                detail::shown_name(name)));
    const std::array<i64, 3> extents{shape.empty() ? 1 : shape[0], shape.size() > 1 ? shape[1] : 1,
                                     shape.size() > 2 ? shape[2] : 1};
    Shape dense{extents[0]};
    if (shape.size() == 2) dense = {extents[0], extents[1]};
    if (shape.size() == 3) dense = {extents[0], extents[1], extents[2]};
    return {{data, *dtype, Device::cpu, dense}};
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
    SafetensorsFile file;
    file.file_ = MappedFile(path);
    const std::string_view json = header_of(file.file_);
    detail::SafetensorsHeader header = detail::parse_safetensors_header(path, json);
    const std::byte* data = file.file_.data() + 8 + json.size();
    const u64 data_bytes = file.file_.size() - 8 - json.size();
    file.entries_.reserve(header.tensors.size());
    for (auto& tensor : header.tensors)
        file.entries_.push_back(checked_entry(path, std::move(tensor), data, data_bytes));
    std::ranges::sort(file.entries_, {},
                      [](const SafetensorsEntry& entry) { return std::pair(entry.data, entry.bytes); });
    check_coverage(path, file.entries_, data, data_bytes);
    file.index_.reserve(file.entries_.size());
    for (std::size_t index = 0; index < file.entries_.size(); ++index)
        file.index_.emplace(file.entries_[index].name, index);
    file.metadata_ = std::move(header.metadata);
    return file;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &entries_[found->second];
}

const SafetensorsEntry& SafetensorsFile::at(std::string_view name) const {
    const SafetensorsEntry* entry = find(name);
    if (!entry) throw Error(fmt::format("{}: holds no tensor {}", path(), detail::shown_name(name)));
    return *entry;
}

}  // namespace moesaic
