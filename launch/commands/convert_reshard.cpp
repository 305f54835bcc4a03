// moesaic convert reshard: the same tensors in another number of files.
#include <cstdio>
#include <filesystem>

#include "launch/commands/commands.h"
#include "launch/convert/run_folder.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/atomic_folder.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/checkpoint_reader.h"

namespace moesaic {

int convert_reshard_command(const ConvertReshardOptions& options) {
    const std::string checkpoint = resolve_checkpoint(options.checkpoint);
    CheckpointReader reader(checkpoint);
    std::vector<PlannedTensor> tensors;
    for (const auto& [name, record] : reader.manifest().tensors) {
        PlannedTensor& tensor = tensors.emplace_back();
        tensor.source = &reader.entry(name);
        tensor.name = name;
        tensor.dtype_name = tensor.source->dtype_name;
        tensor.shape = record.shape;
        tensor.verbatim = true;
    }
    AtomicFolder run(options.out);
    const std::string folder = prepare_checkpoint_folder(run.path(), reader.manifest().step);
    Manifest manifest = reader.manifest();
    manifest.shards.clear();
    manifest.tensors.clear();
    for (ShardRecord& shard :
         write_tensor_files(folder, split_evenly(tensors, options.shards), shard_file_name))
        manifest.add_shard(folder, std::move(shard));
    write_manifest(folder, manifest);
    write_latest(run.path(), manifest.step);
    write_file_atomically(run.path() + "/config.yaml", manifest.config);
    run.commit();
    std::printf("resharded %s: %zu tensors in %zu files, before in %zu\n  run folder    %s (step %lld)\n",
                checkpoint.c_str(), tensors.size(), manifest.shards.size(), reader.manifest().shards.size(),
                options.out.c_str(), static_cast<long long>(manifest.step));
    return 0;
}

}  // namespace moesaic
