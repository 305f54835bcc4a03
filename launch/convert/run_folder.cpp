#include "launch/convert/run_folder.h"

#include <filesystem>

#include "runtime/base/atomic_file.h"
#include "runtime/base/atomic_folder.h"
#include "runtime/base/mapped_file.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/config/load.h"

namespace moesaic {

namespace fs = std::filesystem;

namespace {

void copy_file(const CopiedFile& file, const std::string& folder) {
    const fs::path target = fs::path(folder) / file.to;
    std::error_code failure;
    fs::create_directories(target.parent_path(), failure);
    if (failure)
        throw Error(
            fmt::format("{}: cannot be created: {}", target.parent_path().string(), failure.message()));
    const MappedFile contents(file.from);
    AtomicFile copy(target.string());
    copy.write(contents.data(), contents.size());
    copy.commit();
}

}  // namespace

void name_after_folder(RunConfig& run, const std::string& folder) {
    fs::path path = fs::path(folder).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();
    run.name = path.filename().string();
    run.out = path.has_parent_path() ? path.parent_path().string() : ".";
}

void write_run_folder(const std::string& folder, const Config& config, const std::string& tokenizer,
                      std::span<const PlannedTensor> tensors, std::span<const CopiedFile> files) {
    AtomicFolder run(folder);
    const std::string checkpoint = prepare_checkpoint_folder(run.path(), 0);
    Manifest manifest;
    manifest.config = to_yaml(config);
    manifest.tokenizer = tokenizer;
    for (ShardRecord& shard :
         write_tensor_files(checkpoint, split_by_bytes(tensors, kShardBytes), shard_file_name))
        manifest.add_shard(checkpoint, std::move(shard));
    write_manifest(checkpoint, manifest);
    write_latest(run.path(), 0);
    write_file_atomically(run.path() + "/config.yaml", manifest.config);
    for (const CopiedFile& file : files) copy_file(file, run.path());
    run.commit();
}

std::string run_folder_of(const std::string& checkpoint) {
    const fs::path path = fs::weakly_canonical(checkpoint);
    return path.parent_path().filename() == "checkpoints" ? path.parent_path().parent_path().string() : "";
}

}  // namespace moesaic
