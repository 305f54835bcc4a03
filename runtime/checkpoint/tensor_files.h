// Tensors streamed from mapped files into new safetensors files, converted on the way.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

/// A tensor of a file to be written: where its elements come from and what becomes of them. Little is held in
/// memory at a time: the source is read where it lies.
struct PlannedTensor {
    std::string name;
    std::string dtype_name = "F32";  ///< in the new file; other than the source's: F32 or BF16
    std::vector<i64> shape;
    /// Elements in the order of `shape`; null where `make` makes them all.
    const SafetensorsEntry* source = nullptr;
    bool verbatim = false;  ///< the source's bytes as they are, whatever they mean
    /// Called with consecutive pieces of the flattened tensor, `first` being the number of the first element:
    /// changes what came from the source or, without one, sets it. May be empty.
    std::function<void(i64 first, std::span<float> values)> make;
};

/// Whether elements of that type can be planned as F32 or BF16: F64, F32, BF16 and F16.
[[nodiscard]] bool is_floating_dtype(std::string_view dtype_name);

/// Writes `values` f32 from elements of a floating type, which need not be aligned. Exact but for F64.
void widen_elements(const std::byte* source, std::string_view dtype_name, std::span<float> values);

/// Calls `visit` with consecutive pieces of a tensor of a floating type, widened to f32; `first` is the
/// number of a piece's first element.
void for_each_piece(const SafetensorsEntry& entry,
                    const std::function<void(i64 first, std::span<float> values)>& visit);

using TensorParts = std::vector<std::span<const PlannedTensor>>;
/// Consecutive parts of at most `bytes` of data; a larger tensor is a part of its own.
[[nodiscard]] TensorParts split_by_bytes(std::span<const PlannedTensor> tensors, i64 bytes);
/// `count` consecutive parts of about equally many bytes; some are empty where there are few tensors.
[[nodiscard]] TensorParts split_evenly(std::span<const PlannedTensor> tensors, i64 count);

/// Writes each part into a file; `file_name(i, n)` names file i of n. A value that is not finite, in a tensor
/// that is converted, is a UserError that names the tensor.
std::vector<ShardRecord> write_tensor_files(const std::string& folder, const TensorParts& parts,
                                            const std::function<std::string(i64 index, i64 files)>& file_name,
                                            const std::map<std::string, std::string>& metadata = {});

}  // namespace moesaic
