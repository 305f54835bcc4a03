#include "launch/checkpointer.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>

#include "comm/expert_slices.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/config/load.h"

namespace moesaic {

namespace {

/// Whether this rank writes a parameter: replicated ones are dealt out over the world, an expert's over the
/// ranks that hold it or a slice of it.
bool writes(const RankRuntime& runtime, std::size_t index) {
    const Parameter& parameter = runtime.store.parameters()[index];
    const Mesh& mesh = *runtime.mesh;
    const auto turn = static_cast<int>(index);
    if (parameter.placement == Placement::replicated)
        return turn % mesh.world().size() == mesh.world().rank();
    const int slices = mesh.expert_tensor(), holders = mesh.replicas().size() * slices;
    return turn % holders == mesh.replicas().rank() * slices + mesh.slice();
}

std::string moment_name(const Parameter& parameter, std::string_view suffix) {
    return parameter.name + std::string(suffix);
}

/// What a rank writes that does not lie in its store as the file has it, by the names in the file.
using StateBytes = std::map<std::string, std::vector<std::byte>>;

/// Collective over mesh.world(), mesh.replicas() and mesh.slices(). This rank's share of moments, master
/// weights, and weights whose slices others hold.
StateBytes state_to_write(RankRuntime& runtime, StepContext& context) {
    std::map<std::string, bool> mine;
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        mine[runtime.store.parameters()[i].name] = writes(runtime, i);
    }
    const bool masters = runtime.store.dtype() != runtime.store.real();
    StateBytes bytes;
    runtime.optimizer->visit_state(context, [&](const Parameter& parameter, const ParameterState& state) {
        const auto add = [&](const std::string& name, ConstTensorView values) {
            if (!mine.at(parameter.name) && !parameter.is_cut()) return;
            std::vector<std::byte> whole = whole_tensor(context, parameter, values, "checkpoint");
            if (mine.at(parameter.name)) bytes[name] = std::move(whole);
        };
        add(moment_name(parameter, kFirstMomentSuffix), state.first_moment);
        add(moment_name(parameter, kSecondMomentSuffix), state.second_moment);
        if (masters || parameter.is_cut()) add(parameter.name, state.value);
    });
    return bytes;
}

SafetensorsWriter::Summary write_shard(RankRuntime& runtime, const std::string& path,
                                       const StateBytes& state) {
    SafetensorsWriter writer(path);
    std::map<std::string, ConstTensorView> values;
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        if (!writes(runtime, i)) continue;
        const Parameter& parameter = runtime.store.parameters()[i];
        const Shape shape = parameter.whole_shape();
        writer.declare(parameter.name, runtime.store.real(), shape);
        writer.declare(moment_name(parameter, kFirstMomentSuffix), runtime.store.real(), shape);
        writer.declare(moment_name(parameter, kSecondMomentSuffix), runtime.store.real(), shape);
        values[parameter.name] = parameter.value;
    }
    for (const Buffer& buffer : runtime.store.buffers()) {
        if (runtime.mesh->world().rank() != 0) break;
        writer.declare(buffer.name, runtime.store.real(), buffer.shape);
        values[buffer.name] = buffer.value;
    }
    for (const std::string& name : std::vector<std::string>(writer.order())) {
        if (const auto bytes = state.find(name); bytes != state.end()) {
            writer.append(name, bytes->second.data(), static_cast<i64>(bytes->second.size()));
        } else {
            writer.write(name, values.at(name));
        }
    }
    return writer.finish();
}

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

/// What a rank reports of its shard; integers, so that one all-gather carries it.
struct ShardReport {
    i64 failed = 0, bytes = 0, checksum = 0;
};

/// Collective over the world.
std::vector<ShardReport> gather_reports(RankRuntime& runtime, ShardReport mine) {
    Communicator& world = runtime.mesh->world();
    std::vector<ShardReport> all(static_cast<std::size_t>(world.size()));
    world.all_gather(*runtime.exchange, view_of(&mine.failed, {1, 3}),
                     view_of(&all.front().failed, {world.size(), 3}), {"reports of checkpoint shards"});
    runtime.exchange->synchronize();
    return all;
}

/// Collective over the world. Runs `work`; where it fails on any rank, the lowest such rank throws what it
/// threw and the others AbortedError, so that a failure is told once.
void together(RankRuntime& runtime, ShardReport& report, std::vector<ShardReport>& reports,
              const std::function<void()>& work) {
    std::exception_ptr failure;
    try {
        work();
    } catch (const std::exception&) {
        failure = std::current_exception();
        report.failed = 1;
    }
    reports = gather_reports(runtime, report);
    const int rank = runtime.mesh->world().rank();
    for (int other = 0; other < runtime.mesh->world().size(); ++other) {
        if (!reports[static_cast<std::size_t>(other)].failed) continue;
        if (other == rank) std::rethrow_exception(failure);
        throw AbortedError(fmt::format("rank {} failed", other));
    }
}

}  // namespace

CheckpointRecord save_checkpoint(RankRuntime& runtime, const std::string& run_folder,
                                 const TrainingPosition& position, const Config& config,
                                 const std::string& tokenizer) {
    const auto start = std::chrono::steady_clock::now();
    Communicator& world = runtime.mesh->world();
    const std::string folder = checkpoints_folder(run_folder) + "/" + step_folder_name(position.step);
    ShardReport report;
    std::vector<ShardReport> reports;
    together(runtime, report, reports, [&] {
        if (world.rank() == 0) prepare_checkpoint_folder(run_folder, position.step);
    });
    StepContext context = runtime.context(Phase::train, position.step);
    const StateBytes state = state_to_write(runtime, context);
    CheckpointRecord record;
    record.step = position.step;
    record.path = folder;
    try {
        together(runtime, report, reports, [&] {
            const auto summary =
                write_shard(runtime, folder + "/" + shard_file_name(world.rank(), world.size()), state);
            report.bytes = summary.bytes;
            report.checksum = static_cast<i64>(summary.checksum);
        });
        together(runtime, report, reports, [&] {
            if (world.rank() != 0) return;
            Manifest manifest;
            manifest.step = position.step;
            manifest.world_size = world.size();
            manifest.expert_parallel = runtime.mesh->expert_parallel();
            manifest.tokens = position.tokens;
            manifest.sampler_cursor = position.step * config.train.batch_sequences;
            manifest.config = to_yaml(config);
            manifest.tokenizer = tokenizer;
            manifest.observers = position.observers;
            for (int rank = 0; rank < world.size(); ++rank) {
                const ShardReport& shard = reports[static_cast<std::size_t>(rank)];
                manifest.add_shard(folder, {shard_file_name(rank, world.size()), shard.bytes,
                                            static_cast<u64>(shard.checksum)});
                record.bytes += shard.bytes;
            }
            write_manifest(folder, manifest);
            write_latest(run_folder, position.step);
            if (config.train.keep_checkpoints) prune_checkpoints(run_folder, *config.train.keep_checkpoints);
        });
    } catch (const std::exception&) {
        // What a full disk could not take must not keep it full; earlier checkpoints stay.
        std::error_code ignored;
        if (!has_manifest(folder)) std::filesystem::remove_all(folder, ignored);
        throw;
    }
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return record;
}

i64 checkpoint_copy_bytes(const RankRuntime& runtime) {
    const bool masters = runtime.store.dtype() != runtime.store.real();
    i64 elements = 0, gathered = 0;
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        const Parameter& parameter = runtime.store.parameters()[i];
        const i64 whole = parameter.whole_shape().elements();
        const i64 copies = masters || parameter.is_cut() ? 3 : 2;  // moments, and values
        if (writes(runtime, i)) elements += copies * whole;
        if (parameter.is_cut()) gathered = std::max(gathered, 2 * whole);  // as slices and as a whole
    }
    return (elements + gathered) * size_of(runtime.store.real());
}

TrainingPosition load_checkpoint(RankRuntime& runtime, const std::string& folder, bool with_optimizer) {
    Communicator& world = runtime.mesh->world();
    TrainingPosition position;
    ShardReport report;
    std::vector<ShardReport> reports;
    StepContext context = runtime.context(Phase::train, 0);
    together(runtime, report, reports, [&] {
        CheckpointReader reader(folder, ShardCheck::sizes);
        position = {reader.manifest().step, reader.manifest().tokens, reader.manifest().observers};
        for (std::size_t shard = 0; shard < reader.manifest().shards.size(); ++shard) {
            if (static_cast<int>(shard % static_cast<std::size_t>(world.size())) == world.rank())
                reader.verify_shard(shard);
        }
    });
    together(runtime, report, reports, [&] {
        CheckpointReader reader(folder, ShardCheck::sizes);
        // Imported weights have no moments; before step 1 these are zero.
        const bool starts_afresh = position.step == 0 && !holds_moments(reader.manifest());
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
                if (!starts_afresh) return read(moment_name(parameter, suffix));
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
    });
    return position;
}

}  // namespace moesaic
