#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/device_memory.h"

namespace moesaic {

SafetensorsWriter::SafetensorsWriter(std::string path, std::map<std::string, std::string> metadata)
    : path_(std::move(path)), metadata_(std::move(metadata)) {}

void SafetensorsWriter::declare_raw(std::string name, std::string dtype_name, std::vector<i64> shape) {
    MOESAIC_ASSERT(order_.empty() && !file_, "{}: {} is declared after data was written", path_, name);
    const i64 element_bytes = detail::safetensors_element_bytes(dtype_name);
    MOESAIC_ASSERT(element_bytes > 0, "{}: {} has the unknown dtype {}", path_, name, dtype_name);
    const std::optional<i64> bytes = detail::checked_bytes(shape, element_bytes);
    MOESAIC_ASSERT(bytes.has_value(), "{}: {} has an impossible shape", path_, name);
    declared_.push_back({std::move(name), std::move(dtype_name), std::move(shape), element_bytes, *bytes});
}

void SafetensorsWriter::declare(std::string name, DType dtype, std::vector<i64> shape) {
    declare_raw(std::move(name), std::string(detail::safetensors_name_of(dtype)), std::move(shape));
}

void SafetensorsWriter::declare(std::string name, DType dtype, const Shape& shape) {
    std::vector<i64> extents;
    extents.reserve(static_cast<std::size_t>(shape.rank()));
    for (int axis = 0; axis < shape.rank(); ++axis) extents.push_back(shape[axis]);
    declare(std::move(name), dtype, std::move(extents));
}

const std::vector<std::string>& SafetensorsWriter::order() {
    if (!file_) begin();
    return order_;
}

void SafetensorsWriter::begin() {
    std::ranges::stable_sort(declared_, std::ranges::greater{}, &Declared::element_bytes);
    nlohmann::json header = nlohmann::json::object();
    if (!metadata_.empty()) header["__metadata__"] = metadata_;
    i64 offset = 0;
    for (const Declared& tensor : declared_) {
        MOESAIC_ASSERT(!header.contains(tensor.name), "{}: {} is declared twice", path_, tensor.name);
        header[tensor.name] = {{"dtype", tensor.dtype_name},
                               {"shape", tensor.shape},
                               {"data_offsets", {offset, offset + tensor.bytes}}};
        offset += tensor.bytes;
        order_.push_back(tensor.name);
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const u64 length = text.size();
    file_.emplace(path_);
    emit(&length, sizeof length);
    emit(text.data(), text.size());
    skip_complete();
}

void SafetensorsWriter::emit(const void* data, std::size_t bytes) {
    file_->write(data, bytes);
    checksum_.update(data, bytes);
}

void SafetensorsWriter::skip_complete() {
    while (current_ < declared_.size() && current_bytes_ == declared_[current_].bytes) {
        ++current_;
        current_bytes_ = 0;
    }
}

void SafetensorsWriter::append(std::string_view name, const void* data, i64 bytes) {
    if (!file_) begin();
    if (bytes == 0) return;
    MOESAIC_ASSERT(current_ < declared_.size(), "{}: data of {} after the last tensor", path_, name);
    const Declared& tensor = declared_[current_];
    MOESAIC_ASSERT(tensor.name == name, "{}: data of {} while {} is due", path_, name, tensor.name);
    MOESAIC_ASSERT(bytes > 0 && bytes <= tensor.bytes - current_bytes_, "{}: {} bytes for {} of {}, {} done",
                   path_, bytes, name, tensor.bytes, current_bytes_);
    emit(data, static_cast<std::size_t>(bytes));
    current_bytes_ += bytes;
    skip_complete();
}

void SafetensorsWriter::write(std::string_view name, const ConstTensorView& tensor) {
    if (!file_) begin();
    MOESAIC_ASSERT(host_may_access(tensor.device), "{}: {} is not in host memory", path_, name);
    if (current_ < declared_.size() && declared_[current_].name == name)
        MOESAIC_ASSERT(declared_[current_].dtype_name == detail::safetensors_name_of(tensor.dtype) &&
                           declared_[current_].bytes == tensor.bytes(),
                       "{}: {} {} {} was declared {} with {} bytes", path_, name, name_of(tensor.dtype),
                       tensor.shape.text(), declared_[current_].dtype_name, declared_[current_].bytes);
    append(name, tensor.data, tensor.bytes());
}

SafetensorsWriter::Summary SafetensorsWriter::finish() {
    if (!file_) begin();
    MOESAIC_ASSERT(current_ == declared_.size(), "{}: {} was declared and not written", path_,
                   declared_[current_].name);
    file_->commit();
    return {file_->bytes_written(), checksum_.value()};
}

}  // namespace moesaic
