#include "runtime/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "runtime/checkpoint/convert_elements.h"

namespace moesaic {

namespace {

std::string text_of(const std::vector<i64>& shape) {
    std::string text = "[";
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
        text += fmt::format("{}{}", axis ? "," : "", shape[axis]);
    return text + "]";
}

bool same_shape(const std::vector<i64>& stored, const Shape& shape) {
    if (static_cast<int>(stored.size()) != shape.rank()) return stored.empty() && shape == Shape{1};
    for (int axis = 0; axis < shape.rank(); ++axis)
        if (stored[static_cast<std::size_t>(axis)] != shape[axis]) return false;
    return true;
}

/// The parameter that a moment is of; a name without such an end is returned as it is.
std::string owner_of_moment(const std::string& name) {
    for (const std::string_view suffix : {kFirstMomentSuffix, kSecondMomentSuffix})
        if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
    return name;
}

/// A line "WHAT 2 tensors:" and a line for each of the first of them; empty where there are none.
std::string list_of(std::string_view what, const std::vector<std::string>& names) {
    constexpr std::size_t kShown = 10;
    if (names.empty()) return "";
    std::string text = fmt::format("\n{} {} tensor{}:", what, names.size(), names.size() == 1 ? "" : "s");
    for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i)
        text += "\n  " + detail::shown_name(names[i]);
    return text + (names.size() > kShown ? "\n  ..." : "");
}

}  // namespace

CheckpointReader::CheckpointReader(std::string folder, ShardCheck check)
    : folder_(std::move(folder)), manifest_(read_manifest(folder_)) {
    shards_.resize(manifest_.shards.size());
    for (std::size_t index = 0; index < shards_.size(); ++index) check_size(index);
    if (check == ShardCheck::sizes) return;
    for (std::size_t index = 0; index < shards_.size(); ++index) verify_shard(index);
}

std::string CheckpointReader::shard_path(std::size_t index) const {
    return folder_ + "/" + manifest_.shards[index].file;
}

void CheckpointReader::check_size(std::size_t index) const {
    const std::string path = shard_path(index);
    std::error_code failure;
    const auto found = std::filesystem::file_size(path, failure);
    if (failure)
        throw Error(fmt::format("{}: the manifest names this shard, but it cannot be read: {}", path,
                                failure.message()));
    const i64 expected = manifest_.shards[index].bytes;
    if (static_cast<i64>(found) != expected)
        throw Error(fmt::format("{}: {}: expected {} bytes, found {}", path,
                                static_cast<i64>(found) < expected ? "truncated shard" : "damaged shard",
                                expected, found));
}

void CheckpointReader::check_header(std::size_t index, const SafetensorsFile& file) const {
    std::size_t expected = 0;
    for (const auto& [name, tensor] : manifest_.tensors) {
        if (tensor.shard != index) continue;
        ++expected;
        const SafetensorsEntry* entry = file.find(name);
        if (!entry)
            throw Error(fmt::format("{}: lacks tensor {}, which the manifest says is here", file.path(),
                                    detail::shown_name(name)));
        if (entry->dtype != tensor.dtype || entry->shape != tensor.shape)
            throw Error(fmt::format("{}: tensor {} is {} {}, in the manifest {} {}", file.path(),
                                    detail::shown_name(name), entry->dtype_name, entry->shape_text(),
                                    detail::safetensors_name_of(tensor.dtype), text_of(tensor.shape)));
    }
    if (file.entries().size() == expected) return;
    for (const SafetensorsEntry& entry : file.entries()) {
        const auto known = manifest_.tensors.find(entry.name);
        if (known == manifest_.tensors.end())
            throw Error(fmt::format("{}: holds tensor {}, which the manifest does not name", file.path(),
                                    detail::shown_name(entry.name)));
        if (known->second.shard != index)
            throw Error(fmt::format("{}: holds tensor {}, which is also in {}", file.path(),
                                    detail::shown_name(entry.name),
                                    manifest_.shards[known->second.shard].file));
    }
}

SafetensorsFile& CheckpointReader::shard(std::size_t index) {
    if (!shards_[index]) {
        check_size(index);
        SafetensorsFile file = SafetensorsFile::open(shard_path(index));
        check_header(index, file);
        shards_[index] = std::move(file);
    }
    return *shards_[index];
}

void CheckpointReader::verify_shard(std::size_t index) {
    // The checksum first: it names a flipped bit as such, where the header would speak of a strange shape.
    const u64 expected = manifest_.shards[index].checksum;
    const MappedFile file(shard_path(index));
    const u64 found = checksum_of(file.data(), file.size());
    if (found != expected)
        throw Error(fmt::format("{}: damaged shard: expected checksum {:016x}, found {:016x}", file.path(),
                                expected, found));
    shard(index);
}

bool CheckpointReader::contains(std::string_view name) const {
    return manifest_.tensors.contains(std::string(name));
}

void CheckpointReader::require_exactly(const std::set<std::string>& names) const {
    std::vector<std::string> missing, surplus;
    // Moments are told of only where what they are of is there.
    for (const std::string& name : names) {
        const std::string owner = owner_of_moment(name);
        if (!contains(name) && (owner == name || contains(owner))) missing.push_back(name);
    }
    for (const auto& [name, tensor] : manifest_.tensors) {
        const std::string owner = owner_of_moment(name);
        if (!names.contains(owner) && !names.contains(name) && (owner == name || !contains(owner)))
            surplus.push_back(name);
    }
    if (missing.empty() && surplus.empty()) return;
    throw UserError(fmt::format("{}: the checkpoint is of another model:{}{}", folder_,
                                list_of("it lacks", missing), list_of("this one has no place for", surplus)));
}

const TensorRecord& CheckpointReader::record(std::string_view name) const {
    const auto found = manifest_.tensors.find(std::string(name));
    if (found == manifest_.tensors.end())
        throw UserError(
            fmt::format("{}: the checkpoint holds no tensor {}", folder_, detail::shown_name(name)));
    return found->second;
}

const SafetensorsEntry& CheckpointReader::entry(std::string_view name) {
    return shard(record(name).shard).at(name);
}

void CheckpointReader::read(std::string_view name, const TensorView& target, Conversion conversion) {
    const TensorRecord& tensor = record(name);
    if (!same_shape(tensor.shape, target.shape))
        throw UserError(fmt::format("{}: tensor {} has shape {}, the model needs {}", folder_, name,
                                    text_of(tensor.shape), target.shape.text()));
    read_elements(name, 0, target, conversion);
}

void CheckpointReader::read_elements(std::string_view name, i64 first, const TensorView& target,
                                     Conversion conversion) {
    const TensorRecord& tensor = record(name);
    if (tensor.dtype != target.dtype &&
        (conversion == Conversion::refuse || !convertible(tensor.dtype, target.dtype)))
        throw UserError(fmt::format("{}: tensor {} holds {}, {} is wanted{}", folder_, name,
                                    name_of(tensor.dtype), name_of(target.dtype),
                                    convertible(tensor.dtype, target.dtype)
                                        ? "; the precision of a run cannot change when it is resumed"
                                        : ""));
    const SafetensorsEntry& entry = shard(tensor.shard).at(name);
    const i64 elements = target.elements();
    if (first < 0 || first > entry.elements() || elements > entry.elements() - first)
        throw UserError(fmt::format("{}: elements {} to {} of tensor {}, which has {}", folder_, first,
                                    first + elements, name, entry.elements()));
    convert_elements(entry.data + first * size_of(tensor.dtype), tensor.dtype, target);
}

}  // namespace moesaic
