#include "launch/checkpoint_loading.h"

#include <algorithm>
#include <set>

#include "comm/expert_slices.h"
#include "launch/convert/declared_parameters.h"
#include "launch/together.h"
#include "runtime/base/log.h"
#include "runtime/checkpoint/checkpoint_folder.h"

namespace moesaic {

namespace {

bool holds_moments(const Manifest& manifest) {
    return std::ranges::any_of(manifest.tensors, [](const auto& tensor) {
        return tensor.first.ends_with(kFirstMomentSuffix) || tensor.first.ends_with(kSecondMomentSuffix);
    });
}

/// What this rank holds of a tensor, which the file has whole.
void read_slice(RankRuntime& runtime, CheckpointReader& reader, const Parameter& parameter,
                const std::string& name, TensorView to) {
    if (!parameter.is_cut()) return reader.read(name, to, Conversion::floating);
    Tensor whole = runtime.backend->allocate(parameter.whole_shape(), to.dtype);
    reader.read(name, whole, Conversion::floating);
    take_slice(parameter, whole, to);
}

/// This rank's part of the shards.
void verify_own_shards(const Communicator& world, CheckpointReader& reader) {
    const std::size_t ranks = static_cast<std::size_t>(world.size());
    for (std::size_t shard = static_cast<std::size_t>(world.rank()); shard < reader.manifest().shards.size();
         shard += ranks)
        reader.verify_shard(shard);
}

/// Every tensor of the whole model, whichever of them this rank holds.
std::set<std::string> tensors_of(const ModelSpec& spec, bool with_moments) {
    std::set<std::string> names;
    for (const Parameter& parameter : declared_parameters(spec)) {
        names.insert(parameter.name);
        if (!with_moments) continue;
        for (const std::string_view suffix : {kFirstMomentSuffix, kSecondMomentSuffix})
            names.insert(moment_name(parameter.name, suffix));
    }
    for (const auto& [name, shape] : declared_buffers(spec)) names.insert(name);
    return names;
}

void read_all(RankRuntime& runtime, CheckpointReader& reader, bool with_optimizer) {
    StepContext context = runtime.context(Phase::train, 0);
    // Imported weights have no moments; before step 1 these are zero.
    const bool starts_afresh = reader.manifest().step == 0 && !holds_moments(reader.manifest());
    reader.require_exactly(tensors_of(runtime.model.spec(), with_optimizer && !starts_afresh));
    for (Parameter& parameter : runtime.store.parameters()) {
        if (!with_optimizer) {
            read_slice(runtime, reader, parameter, parameter.name, parameter.value);
            continue;
        }
        const auto read = [&](const std::string& name) {
            Tensor tensor = runtime.backend->allocate(parameter.shape, runtime.store.real());
            read_slice(runtime, reader, parameter, name, tensor);
            return tensor;
        };
        const auto moment = [&](std::string_view suffix) {
            if (!starts_afresh) return read(moment_name(parameter.name, suffix));
            Tensor zeros = runtime.backend->allocate(parameter.shape, runtime.store.real());
            runtime.backend->zero(context.compute, zeros);
            return zeros;
        };
        const Tensor value = read(parameter.name);
        const Tensor first = moment(kFirstMomentSuffix), second = moment(kSecondMomentSuffix);
        runtime.optimizer->load_state(context, parameter, {value, first, second});
    }
    for (Buffer& buffer : runtime.store.buffers())
        reader.read(buffer.name, buffer.value, Conversion::floating);
    runtime.store.pack(*runtime.compute);
}

}  // namespace

TrainingPosition load_checkpoint(RankRuntime& runtime, const std::string& folder, bool with_optimizer,
                                 bool verified) {
    Communicator& world = runtime.mesh->world();
    TrainingPosition position;
    together(world, *runtime.exchange, [&] {
        CheckpointReader reader(folder, ShardCheck::sizes);
        position = {reader.manifest().step, reader.manifest().tokens, reader.manifest().observers};
        if (!verified) verify_own_shards(world, reader);
    });
    together(world, *runtime.exchange, [&] {
        CheckpointReader reader(folder, ShardCheck::sizes);
        read_all(runtime, reader, with_optimizer);
    });
    return position;
}

std::string newest_sound_checkpoint(Communicator& world, const std::string& run_folder) {
    const std::optional<std::string> latest = find_latest(run_folder);
    if (!latest) return "";
    std::vector<std::string> candidates{*latest};
    const std::vector<CheckpointFolder> all = list_checkpoints(run_folder);
    const auto newest = std::ranges::find(all, *latest, &CheckpointFolder::path);
    for (auto one = newest; one != all.begin();) {
        if ((--one)->complete) candidates.push_back(one->path);
    }
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("checkpoint verification");
    std::string wrong;
    for (const std::string& folder : candidates) {
        wrong.clear();
        try {
            CheckpointReader reader(folder, ShardCheck::sizes);
            verify_own_shards(world, reader);
        } catch (const std::exception& damage) {
            wrong = damage.what();
        }
        const std::vector<bool> failed = gather_failures(world, *stream, !wrong.empty());
        const auto first = std::ranges::find(failed, true);
        if (first == failed.end()) return folder;
        if (first - failed.begin() == world.rank())
            log_warn("{}; going on from an older checkpoint, if there is a sound one", wrong);
    }
    if (world.rank() != 0) throw AbortedError("rank 0 failed");
    throw Error(fmt::format(
        "{}: all {} complete checkpoints are damaged (each is named above); restore one from a backup, or "
        "start the run anew without --resume",
        checkpoints_folder(run_folder), candidates.size()));
}

}  // namespace moesaic
