#include "comm/copied_experts.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace moesaic {

namespace {

i64 elements_of(const ParameterStore& store, std::size_t parameter) {
    return store.parameters()[parameter].shape.elements();
}

TensorView value_of(const ParameterStore& store, std::size_t parameter) {
    return store.parameters()[parameter].value.flat(0, elements_of(store, parameter));
}

TensorView sum_of(ParameterStore& store, std::size_t parameter) {
    return store.sums(Placement::expert).flat(store.offset_of(parameter), elements_of(store, parameter));
}

Tensor allocate(StepContext& context, i64 elements, DType dtype) {
    const MemoryUseScope scope(context.backend.pool(), MemoryUse::exchange);
    return context.backend.allocate({elements}, dtype);
}

}  // namespace

CopiedExperts::CopiedExperts(ParameterStore& store, std::span<const GradientBucket> buckets) : store_(store) {
    std::map<std::string, Tensors> tensors;  // by the name that expert 0 has
    const auto add = [&](const ParameterStore& from, std::vector<std::size_t> Tensors::*indices) {
        for (std::size_t i = 0; i < from.parameters().size(); ++i) {
            const Parameter& parameter = from.parameters()[i];
            if (parameter.placement != Placement::expert) continue;
            MOESAIC_ASSERT(parameter.folds_itself, "{}: its sum is not complete before its segment is folded",
                           parameter.name);
            Tensors& one = tensors[parameter.name_for_expert(0)];
            one.layer = parameter.layer;
            (one.*indices).push_back(i);
        }
    };
    add(store, &Tensors::experts);
    add(store.copies(), &Tensors::places);
    for (const GradientBucket& bucket : buckets) {
        if (bucket.placement != Placement::expert) continue;
        Bucket& mine = buckets_.emplace_back();
        mine.first_segment = bucket.first_segment;
        for (const auto& [name, one] : tensors) {
            const i64 offset = store.offset_of(one.experts.front());
            if (offset >= bucket.range.begin && offset < bucket.range.end) mine.tensors.push_back(one);
        }
    }
}

i64 CopiedExperts::Side::total() const {
    return std::reduce(elements.begin(), elements.end());
}

bool CopiedExperts::any_copies(const Mesh& mesh, const Bucket& bucket) {
    return std::ranges::any_of(bucket.tensors,
                               [&](const Tensors& one) { return mesh.copies(one.layer).any(); });
}

CopiedExperts::Sides CopiedExperts::sides_of(const Mesh& mesh, const Bucket& bucket) const {
    const i64 places = mesh.copy_places(), each = mesh.local_experts();
    const int self = mesh.expert_rank();
    const std::vector<i64> none(static_cast<std::size_t>(mesh.expert_parallel()), 0);
    Sides sides{{store_, {}, none}, {store_.copies(), {}, none}};
    const auto add = [](Side& side, int peer, std::size_t parameter) {
        side.passages.push_back({peer, parameter});
        side.elements[static_cast<std::size_t>(peer)] += elements_of(side.store, parameter);
    };
    for (const Tensors& one : bucket.tensors) {
        const ExpertCopies& copies = mesh.copies(one.layer);
        for (i64 place = 0; place < std::ssize(copies.places); ++place) {
            const i32 expert = copies.places[static_cast<std::size_t>(place)].expert;
            if (expert < 0) continue;
            const i64 position = mesh.placement(one.layer).position_of[static_cast<std::size_t>(expert)];
            const int home = static_cast<int>(position / each), holder = static_cast<int>(place / places);
            if (home == self)
                add(sides.homes, holder, one.experts[static_cast<std::size_t>(position % each)]);
            if (holder == self) add(sides.copies, home, one.places[static_cast<std::size_t>(place % places)]);
        }
    }
    std::ranges::stable_sort(sides.homes.passages, {}, &Passage::peer);
    std::ranges::stable_sort(sides.copies.passages, {}, &Passage::peer);
    return sides;
}

void CopiedExperts::rehearse(StepContext& context, const Bucket& bucket, DType dtype) const {
    if (context.mesh.expert_parallel() == 1) return;
    i64 held = 0;
    for (const Tensors& one : bucket.tensors)
        held += elements_of(store_.copies(), one.places.front()) * context.mesh.copy_places();
    const Tensor at_places = allocate(context, held, dtype);
    const Tensor at_homes = allocate(context, held, dtype);
}

void CopiedExperts::send_values(StepContext& context, const Bucket& bucket) const {
    if (!context.backend.computes()) return rehearse(context, bucket, store_.dtype());
    if (!any_copies(context.mesh, bucket)) return;
    const Sides sides = sides_of(context.mesh, bucket);
    Tensor leaving = allocate(context, sides.homes.total(), store_.dtype());
    Tensor arriving = allocate(context, sides.copies.total(), store_.dtype());
    i64 at = 0;
    for (const Passage& passage : sides.homes.passages) {
        const ConstTensorView value = value_of(store_, passage.parameter);
        context.backend.copy(context.compute, value, leaving.view().flat(at, value.elements()));
        at += value.elements();
    }
    context.exchange.wait(context.compute.record());
    context.mesh.same_slice().all_to_all_rows(context.exchange, leaving.view(), sides.homes.elements,
                                              arriving.view(), sides.copies.elements, {kCopiedExpertsPhase});
    context.compute.wait(context.exchange.record());
    at = 0;
    for (const Passage& passage : sides.copies.passages) {
        const TensorView value = value_of(store_.copies(), passage.parameter);
        context.backend.copy(context.compute, arriving.view().flat(at, value.elements()), value);
        at += value.elements();
    }
}

void CopiedExperts::bring_gradients_home(StepContext& context, const Bucket& bucket) const {
    if (!context.backend.computes()) return rehearse(context, bucket, DType::f64);
    if (!any_copies(context.mesh, bucket)) return;
    const Sides sides = sides_of(context.mesh, bucket);
    Tensor leaving = allocate(context, sides.copies.total(), DType::f64);
    Tensor arriving = allocate(context, sides.homes.total(), DType::f64);
    i64 at = 0;
    for (const Passage& passage : sides.copies.passages) {
        const ConstTensorView sum = sum_of(store_.copies(), passage.parameter);
        context.backend.copy(context.compute, sum, leaving.view().flat(at, sum.elements()));
        at += sum.elements();
    }
    context.exchange.wait(context.compute.record());
    context.mesh.same_slice().all_to_all_rows(context.exchange, leaving.view(), sides.copies.elements,
                                              arriving.view(), sides.homes.elements, {kCopiedGradientsPhase});
    context.compute.wait(context.exchange.record());
    at = 0;
    for (const Passage& passage : sides.homes.passages) {  // by peer, and so in the order of places
        const TensorView sum = sum_of(store_, passage.parameter);
        context.backend.add(context.compute, arriving.view().flat(at, sum.elements()), sum);
        at += sum.elements();
    }
}

void CopiedExperts::refresh(StepContext& context) {
    for (const Bucket& bucket : buckets_) send_values(context, bucket);
    store_.copies().pack(context.compute);
}

void CopiedExperts::segment_ready(StepContext& context, int segment) {
    for (const Bucket& bucket : buckets_) {
        if (bucket.first_segment == segment) bring_gradients_home(context, bucket);
    }
}

}  // namespace moesaic
