// Tensors out of a complete checkpoint, whichever layout wrote it.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

enum class ShardCheck : std::uint8_t {
    contents,  ///< read every shard once and compare its checksum
    sizes,     ///< compare sizes only; ranks then share verify_shard() among them
};
enum class Conversion : std::uint8_t {
    refuse,   ///< the stored type must be the one asked for
    floating  ///< f64, f32 and bf16 may become one another, rounded to nearest
};

/// Damage is an Error that names the file, with what was expected and what was found; a tensor that the
/// checkpoint lacks, or holds in another shape or type, is a UserError (checkpoint and model do not fit).
class CheckpointReader {
  public:
    explicit CheckpointReader(std::string folder, ShardCheck check = ShardCheck::contents);

    [[nodiscard]] const Manifest& manifest() const { return manifest_; }
    [[nodiscard]] const std::string& folder() const { return folder_; }
    [[nodiscard]] bool contains(std::string_view name) const;
    /// A UserError that lists the tensors of `names` which the checkpoint lacks, and what it holds besides
    /// them and their moments, if anything.
    void require_exactly(const std::set<std::string>& names) const;

    /// The tensor as it lies in its shard, which stays mapped as long as this reader lives.
    [[nodiscard]] const SafetensorsEntry& entry(std::string_view name);
    /// Reads the whole tensor into host memory of the same shape.
    void read(std::string_view name, const TensorView& target, Conversion conversion = Conversion::refuse);
    /// Reads the elements from `first` on of the flattened tensor, as many as `target` holds.
    void read_elements(std::string_view name, i64 first, const TensorView& target,
                       Conversion conversion = Conversion::refuse);
    /// Compares the checksum and the header of shard `index` with the manifest.
    void verify_shard(std::size_t index);

  private:
    std::string folder_;
    Manifest manifest_;
    std::vector<std::optional<SafetensorsFile>> shards_;  // opened when first needed

    [[nodiscard]] std::string shard_path(std::size_t index) const;
    void check_size(std::size_t index) const;
    void check_header(std::size_t index, const SafetensorsFile& file) const;
    SafetensorsFile& shard(std::size_t index);
    [[nodiscard]] const TensorRecord& record(std::string_view name) const;
};

}  // namespace moesaic
