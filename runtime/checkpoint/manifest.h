// manifest.json, the table of contents of a checkpoint: its presence says that the checkpoint is complete.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tensor.h"

namespace moesaic {

inline constexpr std::string_view kManifestName = "manifest.json";
inline constexpr std::string_view kFirstMomentSuffix = ".first_moment";
inline constexpr std::string_view kSecondMomentSuffix = ".second_moment";
[[nodiscard]] inline std::string moment_name(std::string_view parameter, std::string_view suffix) {
    return std::string(parameter) + std::string(suffix);
}

struct ShardRecord {
    std::string file;  ///< a name within the checkpoint folder
    i64 bytes = 0;
    u64 checksum = 0;  ///< XXH64 of the complete file
    bool operator==(const ShardRecord&) const = default;
};

struct TensorRecord {
    std::size_t shard = 0;  ///< index into Manifest::shards
    DType dtype = DType::f32;
    std::vector<i64> shape;
    bool operator==(const TensorRecord&) const = default;
};

struct Manifest {
    static constexpr i64 kFormatVersion = 1;

    i64 step = 0;
    i64 world_size = 1;
    i64 expert_parallel = 1;
    i64 tokens = 0;          ///< seen so far
    i64 sampler_cursor = 0;  ///< where the next global batch begins
    std::string config;      ///< the resolved configuration, as YAML
    std::string tokenizer;   ///< its fingerprint (Tokenizer::fingerprint); empty: not recorded
    std::vector<ShardRecord> shards;
    std::map<std::string, TensorRecord> tensors;
    /// What the run's observers remember, finite numbers by name; empty in checkpoints of other programs.
    std::map<std::string, std::vector<double>> observers;
    bool operator==(const Manifest&) const = default;

    /// Adds a finished shard and the tensors that its header lists; a tensor that another shard holds is an
    /// Error. Rank 0 calls this for each rank's shard, so all ranks write to one shared folder.
    void add_shard(const std::string& folder, ShardRecord shard);
};

/// "step-00000100", "shard-00001-of-00004.safetensors".
[[nodiscard]] std::string step_folder_name(i64 step);
[[nodiscard]] std::string shard_file_name(i64 shard, i64 shards);

/// Atomic and brought to disk; called once all shards are. Keeps a checksum of itself.
void write_manifest(const std::string& folder, const Manifest& manifest);

/// A folder without manifest is a UserError (the checkpoint is incomplete); a damaged manifest an Error.
[[nodiscard]] Manifest read_manifest(const std::string& folder);
[[nodiscard]] bool has_manifest(const std::string& folder);

}  // namespace moesaic
