#include "launch/checkpoint_shard.h"

#include <algorithm>
#include <cstring>
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

}  // namespace

void ShardSnapshot::describe(const RankRuntime& runtime) {
    std::size_t count = 0;
    index_.clear();
    const auto next = [&](const std::string& name, const Shape& shape) {
        if (count == entries_.size()) entries_.emplace_back();
        Entry& entry = entries_[count];
        index_[name] = count++;
        entry.name = name;
        entry.dtype = runtime.store.real();
        entry.shape = shape;
        entry.bytes.resize(static_cast<std::size_t>(shape.elements() * size_of(entry.dtype)));
    };
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        if (!writes(runtime, i)) continue;
        const Parameter& parameter = runtime.store.parameters()[i];
        const Shape shape = parameter.whole_shape();
        next(parameter.name, shape);
        next(moment_name(parameter.name, kFirstMomentSuffix), shape);
        next(moment_name(parameter.name, kSecondMomentSuffix), shape);
    }
    if (runtime.mesh->world().rank() == 0) {
        for (const Buffer& buffer : runtime.store.buffers()) next(buffer.name, buffer.shape);
    }
    entries_.resize(count);
}

void ShardSnapshot::copy_to(const std::string& name, const void* data, i64 bytes) {
    Entry& entry = entries_[index_.at(name)];
    MOESAIC_ASSERT(std::ssize(entry.bytes) == bytes, "{} has {} bytes, not {}", name, entry.bytes.size(),
                   bytes);
    if (bytes > 0) std::memcpy(entry.bytes.data(), data, static_cast<std::size_t>(bytes));
}

void ShardSnapshot::take(RankRuntime& runtime, i64 step) {
    StepContext context = runtime.context(Phase::train, step);
    describe(runtime);
    const bool masters = runtime.store.dtype() != runtime.store.real();
    // Moments, masters, and weights whose slices others hold.
    runtime.optimizer->visit_state(context, [&](const Parameter& parameter, const ParameterState& state) {
        const bool mine = index_.contains(parameter.name);
        const auto add = [&](const std::string& name, ConstTensorView values) {
            if (!parameter.is_cut()) {
                if (mine) copy_to(name, values.data, values.bytes());
                return;
            }
            const std::vector<std::byte> whole = whole_tensor(context, parameter, values, "checkpoint");
            if (mine) copy_to(name, whole.data(), std::ssize(whole));
        };
        add(moment_name(parameter.name, kFirstMomentSuffix), state.first_moment);
        add(moment_name(parameter.name, kSecondMomentSuffix), state.second_moment);
        if (masters || parameter.is_cut()) add(parameter.name, state.value);
    });
    runtime.compute->synchronize();
    for (const Parameter& parameter : std::as_const(runtime.store).parameters()) {
        if (!masters && !parameter.is_cut() && index_.contains(parameter.name))
            copy_to(parameter.name, parameter.value.data, parameter.value.bytes());
    }
    if (runtime.mesh->world().rank() != 0) return;
    for (const Buffer& buffer : std::as_const(runtime.store).buffers())
        copy_to(buffer.name, buffer.value.view().data, buffer.value.view().bytes());
}

SafetensorsWriter::Summary ShardSnapshot::write(const std::string& path) const {
    SafetensorsWriter writer(path);
    for (const Entry& entry : entries_) writer.declare(entry.name, entry.dtype, entry.shape);
    for (const std::string& name : std::vector<std::string>(writer.order())) {
        const Entry& entry = entries_[index_.at(name)];
        writer.append(name, entry.bytes.data(), std::ssize(entry.bytes));
    }
    return writer.finish();
}

i64 checkpoint_copy_bytes(const RankRuntime& runtime) {
    constexpr i64 kCopies = 3;  // weights and moments
    i64 elements = 0, gathered = 0;
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        const Parameter& parameter = runtime.store.parameters()[i];
        const i64 whole = parameter.whole_shape().elements();
        if (writes(runtime, i)) elements += kCopies * whole;
        if (parameter.is_cut()) gathered = std::max(gathered, 2 * whole);  // as slices and as a whole
    }
    if (runtime.mesh->world().rank() == 0) {
        for (const Buffer& buffer : runtime.store.buffers()) elements += buffer.shape.elements();
    }
    return (elements + gathered) * size_of(runtime.store.real());
}

}  // namespace moesaic
