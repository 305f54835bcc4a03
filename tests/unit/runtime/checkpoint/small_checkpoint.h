// A complete checkpoint of two shards for tests: "a" and "a.first_moment" in one, "b" in the other.
#pragma once

#include <vector>

#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

inline ShardRecord write_small_shard(const std::string& folder, i64 shard,
                                     const std::vector<std::string>& names) {
    const ShardRecord record{shard_file_name(shard, 2), 0, 0};
    SafetensorsWriter writer(folder + "/" + record.file);
    for (const std::string& name : names) writer.declare(name, DType::f32, Shape{2, 3});
    float next = static_cast<float>(10 * shard);
    for (const std::string& name : writer.order()) {
        std::vector<float> values(6);
        for (float& value : values) value = next += 1;
        writer.write(name, view_of(values.data(), {2, 3}));
    }
    const SafetensorsWriter::Summary summary = writer.finish();
    return {record.file, summary.bytes, summary.checksum};
}

inline Manifest small_manifest(const std::string& folder, i64 step) {
    Manifest manifest;
    manifest.step = step;
    manifest.world_size = 2;
    manifest.expert_parallel = 2;
    manifest.tokens = 1000 * step;
    manifest.sampler_cursor = 32 * step;
    manifest.config = "run: {name: \"small\"}\n";
    manifest.add_shard(folder, write_small_shard(folder, 0, {"a", "a.first_moment"}));
    manifest.add_shard(folder, write_small_shard(folder, 1, {"b"}));
    return manifest;
}

/// Returns the checkpoint's folder.
inline std::string write_small_checkpoint(const std::string& run_folder, i64 step) {
    const std::string folder = prepare_checkpoint_folder(run_folder, step);
    write_manifest(folder, small_manifest(folder, step));
    return folder;
}

}  // namespace moesaic
