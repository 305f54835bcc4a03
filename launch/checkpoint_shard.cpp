#include "launch/checkpoint_shard.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <utility>

#include "comm/expert_slices.h"
#include "runtime/checkpoint/manifest.h"

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

struct ShardEntry {
    std::string name;
    Shape shape;
};

/// What this rank writes, in the order of visit_share().
std::vector<ShardEntry> entries_of_share(const RankRuntime& runtime) {
    std::vector<ShardEntry> entries;
    for (const GradientBucket& bucket : runtime.gradient_sync->buckets()) {
        for (const TensorPiece& piece : pieces_in(runtime.store, bucket.placement, bucket.range)) {
            if (!writes(runtime, piece.parameter)) continue;
            const Parameter& parameter = runtime.store.parameters()[piece.parameter];
            const Shape shape = parameter.whole_shape();
            entries.push_back({parameter.name, shape});
            entries.push_back({moment_name(parameter.name, kFirstMomentSuffix), shape});
            entries.push_back({moment_name(parameter.name, kSecondMomentSuffix), shape});
        }
    }
    if (runtime.mesh->world().rank() != 0) return entries;
    for (const Buffer& buffer : runtime.store.buffers()) entries.push_back({buffer.name, buffer.shape});
    return entries;
}

using EntryVisitor = std::function<void(const std::string& name, const void* data, i64 bytes)>;

/// Collective over mesh.world(), mesh.replicas() and mesh.slices(). Shows what this rank writes, piece by
/// piece: no more than a bucket of it exists a second time.
void visit_share(RankRuntime& runtime, i64 step, const EntryVisitor& visit) {
    StepContext context = runtime.context(Phase::train, step);
    const Parameter* const first = std::as_const(runtime.store).parameters().data();
    runtime.optimizer->visit_state(context, [&](const Parameter& parameter, const ParameterState& state) {
        const bool mine = writes(runtime, static_cast<std::size_t>(&parameter - first));
        const auto show = [&](const std::string& name, ConstTensorView values) {
            if (!parameter.is_cut()) {
                if (mine) visit(name, values.data, values.bytes());
                return;
            }
            const std::vector<std::byte> whole = whole_tensor(context, parameter, values, "checkpoint");
            if (mine) visit(name, whole.data(), std::ssize(whole));
        };
        show(parameter.name, state.value);
        show(moment_name(parameter.name, kFirstMomentSuffix), state.first_moment);
        show(moment_name(parameter.name, kSecondMomentSuffix), state.second_moment);
    });
    runtime.compute->synchronize();
    if (runtime.mesh->world().rank() != 0) return;
    for (const Buffer& buffer : std::as_const(runtime.store).buffers())
        visit(buffer.name, buffer.value.view().data, buffer.value.view().bytes());
}

}  // namespace

void ShardSnapshot::take(RankRuntime& runtime, i64 step) {
    const std::vector<ShardEntry> share = entries_of_share(runtime);
    entries_.resize(share.size());
    for (std::size_t i = 0; i < share.size(); ++i) {
        Entry& entry = entries_[i];
        entry.name = share[i].name;
        entry.dtype = runtime.store.real();
        entry.shape = share[i].shape;
        entry.bytes.resize(static_cast<std::size_t>(entry.shape.elements() * size_of(entry.dtype)));
    }
    std::size_t next = 0;
    visit_share(runtime, step, [&](const std::string& name, const void* data, i64 bytes) {
        MOESAIC_ASSERT(next < entries_.size() && entries_[next].name == name, "{} is not due", name);
        Entry& entry = entries_[next++];
        MOESAIC_ASSERT(std::ssize(entry.bytes) == bytes, "{} has {} bytes, not {}", name, entry.bytes.size(),
                       bytes);
        if (bytes > 0) std::memcpy(entry.bytes.data(), data, static_cast<std::size_t>(bytes));
    });
    MOESAIC_ASSERT(next == entries_.size(), "{} was not visited", entries_[next].name);
}

SafetensorsWriter::Summary ShardSnapshot::write(const std::string& path) const {
    SafetensorsWriter writer(path);
    for (const Entry& entry : entries_) writer.declare(entry.name, entry.dtype, entry.shape);
    for (const Entry& entry : entries_)
        writer.append(entry.name, entry.bytes.data(), std::ssize(entry.bytes));
    return writer.finish();
}

SafetensorsWriter::Summary write_shard_at_once(RankRuntime& runtime, i64 step, const std::string& path) {
    SafetensorsWriter writer(path);
    for (const ShardEntry& entry : entries_of_share(runtime))
        writer.declare(entry.name, runtime.store.real(), entry.shape);
    std::exception_ptr failure;  // the others go on with the collectives of the visit
    visit_share(runtime, step, [&](const std::string& name, const void* data, i64 bytes) {
        try {
            if (!failure) writer.append(name, data, bytes);
        } catch (const std::exception&) {
            failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
    return writer.finish();
}

i64 checkpoint_copy_bytes(const RankRuntime& runtime, bool copies) {
    constexpr i64 kCopies = 3;  // weights and moments
    i64 elements = 0, gathered = 0;
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        const Parameter& parameter = runtime.store.parameters()[i];
        const i64 whole = parameter.whole_shape().elements();
        if (copies && writes(runtime, i)) elements += kCopies * whole;
        if (parameter.is_cut()) gathered = std::max(gathered, 2 * whole);  // as slices and as a whole
    }
    if (copies && runtime.mesh->world().rank() == 0) {
        for (const Buffer& buffer : runtime.store.buffers()) elements += buffer.shape.elements();
    }
    return (elements + gathered) * size_of(runtime.store.real());
}

}  // namespace moesaic
