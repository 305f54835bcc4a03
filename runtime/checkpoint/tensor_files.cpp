#include "runtime/checkpoint/tensor_files.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/checkpoint/convert_elements.h"

namespace moesaic {

namespace {

constexpr i64 kPieceElements = i64{1} << 18;

/// IEEE 754 binary16 to binary32; every value of the former is one of the latter.
float widen_half(std::uint16_t half) {
    const u32 sign = static_cast<u32>(half & 0x8000u) << 16;
    const u32 exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -magnitude : magnitude;
}

void check_finite(const std::string& name, i64 first, std::span<const float> values) {
    const auto bad = std::ranges::find_if_not(values, [](float value) { return std::isfinite(value); });
    if (bad == values.end()) return;
    throw UserError(fmt::format("tensor {} holds {} (element {}): such weights give no numbers",
                                detail::shown_name(name), std::isnan(*bad) ? "nan" : "inf",
                                first + (bad - values.begin())));
}

i64 bytes_of(const PlannedTensor& tensor) {
    return *detail::checked_bytes(tensor.shape, detail::safetensors_element_bytes(tensor.dtype_name));
}

/// Calls `visit` with consecutive pieces of `elements` elements; only their sizes are set.
void for_each_buffer(i64 elements, const std::function<void(i64 first, std::span<float> values)>& visit) {
    std::vector<float> values(static_cast<std::size_t>(std::min(elements, kPieceElements)));
    for (i64 first = 0; first < elements; first += kPieceElements)
        visit(first,
              std::span(values).first(static_cast<std::size_t>(std::min(kPieceElements, elements - first))));
}

void widen_piece(const SafetensorsEntry& entry, i64 first, std::span<float> values) {
    const i64 size = detail::safetensors_element_bytes(entry.dtype_name);
    widen_elements(entry.data + first * size, entry.dtype_name, values);
}

/// Appends one tensor, converted piece by piece.
void write_converted(SafetensorsWriter& writer, const PlannedTensor& tensor) {
    const bool brain = tensor.dtype_name == "BF16";
    MOESAIC_ASSERT(brain || tensor.dtype_name == "F32", "{} cannot become {}", tensor.name,
                   tensor.dtype_name);
    std::vector<BFloat16> narrowed;
    for_each_buffer(*detail::checked_bytes(tensor.shape, 1), [&](i64 first, std::span<float> piece) {
        if (tensor.source) widen_piece(*tensor.source, first, piece);
        if (tensor.make) tensor.make(first, piece);
        check_finite(tensor.name, first, piece);
        const i64 count = std::ssize(piece);
        if (brain) {
            narrowed.resize(piece.size());
            convert_elements(reinterpret_cast<const std::byte*>(piece.data()), DType::f32,
                             view_of(narrowed.data(), {count}));
            writer.append(tensor.name, narrowed.data(), count * 2);
        } else {
            writer.append(tensor.name, piece.data(), count * 4);
        }
    });
}

ShardRecord write_file(const std::string& folder, const std::string& name,
                       std::span<const PlannedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
    SafetensorsWriter writer(folder + "/" + name, metadata);
    std::map<std::string, const PlannedTensor*> by_name;
    for (const PlannedTensor& tensor : tensors) {
        writer.declare_raw(tensor.name, tensor.dtype_name, tensor.shape);
        by_name[tensor.name] = &tensor;
    }
    for (const std::string& due : std::vector<std::string>(writer.order())) {
        const PlannedTensor& tensor = *by_name.at(due);
        MOESAIC_ASSERT(!tensor.source || tensor.source->shape == tensor.shape,
                       "{}: planned with another shape", due);
        if (tensor.verbatim) {
            writer.append(due, tensor.source->data, tensor.source->bytes);
        } else {
            write_converted(writer, tensor);
        }
    }
    const SafetensorsWriter::Summary summary = writer.finish();
    return {name, summary.bytes, summary.checksum};
}

}  // namespace

bool is_floating_dtype(std::string_view dtype_name) {
    return dtype_name == "F32" || dtype_name == "BF16" || dtype_name == "F16" || dtype_name == "F64";
}

void widen_elements(const std::byte* source, std::string_view dtype_name, std::span<float> values) {
    if (dtype_name == "F16") {
        for (float& value : values) {
            std::uint16_t half = 0;
            std::memcpy(&half, source, sizeof half);
            source += sizeof half;
            value = widen_half(half);
        }
        return;
    }
    const std::optional<DType> dtype = detail::dtype_of_safetensors(dtype_name);
    MOESAIC_ASSERT(dtype && is_floating_dtype(dtype_name), "{} cannot become F32", dtype_name);
    convert_elements(source, *dtype, view_of(values.data(), {static_cast<i64>(values.size())}));
}

void for_each_piece(const SafetensorsEntry& entry,
                    const std::function<void(i64 first, std::span<float> values)>& visit) {
    for_each_buffer(entry.elements(), [&](i64 first, std::span<float> piece) {
        widen_piece(entry, first, piece);
        visit(first, piece);
    });
}

TensorParts split_by_bytes(std::span<const PlannedTensor> tensors, i64 bytes) {
    TensorParts parts;
    std::size_t first = 0;
    i64 held = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const i64 more = bytes_of(tensors[i]);
        if (i > first && held + more > bytes) {
            parts.push_back(tensors.subspan(first, i - first));
            first = i;
            held = 0;
        }
        held += more;
    }
    parts.push_back(tensors.subspan(first));
    return parts;
}

TensorParts split_evenly(std::span<const PlannedTensor> tensors, i64 count) {
    i64 total = 0;
    for (const PlannedTensor& tensor : tensors) total += bytes_of(tensor);
    TensorParts parts;
    std::size_t first = 0;
    double held = 0;
    for (i64 part = 1; part <= count; ++part) {
        std::size_t last = first;
        const double goal =
            static_cast<double>(total) / static_cast<double>(count) * static_cast<double>(part);
        for (; last < tensors.size() && (part == count || held < goal); ++last)
            held += static_cast<double>(bytes_of(tensors[last]));
        parts.push_back(tensors.subspan(first, last - first));
        first = last;
    }
    return parts;
}

std::vector<ShardRecord> write_tensor_files(const std::string& folder, const TensorParts& parts,
                                            const std::function<std::string(i64, i64)>& file_name,
                                            const std::map<std::string, std::string>& metadata) {
    std::vector<ShardRecord> files;
    for (const std::span<const PlannedTensor> part : parts)
        files.push_back(write_file(folder, file_name(std::ssize(files), std::ssize(parts)), part, metadata));
    return files;
}

}  // namespace moesaic
