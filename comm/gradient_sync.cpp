#include "comm/gradient_sync.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/philox.h"

namespace moesaic {

namespace {

constexpr Placement kPlacements[] = {Placement::replicated, Placement::expert};

struct LogicalTensor {
    u64 hash = 0;  // of its name
    i64 elements = 0;
    [[nodiscard]] i64 blocks() const { return (elements + kGradientBlock - 1) / kGradientBlock; }
};

/// What the norm knows a slice of a tensor by; of one that every slice holds whole, slice 0 counts.
u64 hash_of(const std::string& name, int slice) {
    return hash_name(slice == 0 ? name : fmt::format("{} slice {}", name, slice));
}

LogicalTensor logical_tensor(const Parameter& parameter) {
    return {hash_name(parameter.name), parameter.shape.elements()};
}

/// The experts' tensors of all ranks of the group, all of one shape.
std::vector<LogicalTensor> expert_tensors(const Mesh& mesh, const ParameterStore& store) {
    std::vector<LogicalTensor> tensors;
    for (const Parameter& parameter : store.parameters()) {
        if (parameter.placement != Placement::expert) continue;
        for (int owner = 0; owner < mesh.expert_parallel(); ++owner) {
            const std::string name = parameter.name_for_expert(mesh.counterpart(parameter, owner));
            for (int slice = 0; slice < (parameter.is_cut() ? parameter.slice.count : 1); ++slice)
                tensors.push_back({hash_of(name, slice), parameter.shape.elements()});
        }
    }
    return tensors;
}

}  // namespace

GradientSync::GradientSync(StepContext& context, ParameterStore& store, i64 bucket_bytes,
                           const PlantedDefects& defects)
    : store_(store), defects_(defects) {
    MOESAIC_ASSERT(!store.sums_once() || context.mesh.world().size() == 1, "{} ranks' gradients summed once",
                   context.mesh.world().size());
    for (const Placement placement : kPlacements) {
        const Communicator& group = group_of(context, placement);
        std::ranges::copy(plan_buckets(store, placement, bucket_bytes, group.rank(), group.size()),
                          std::back_inserter(buckets_));
    }
    segments_ = static_cast<int>(store.segments(Placement::replicated).size());
    next_segment_ = segments_ - 1;
    waiting_.reserve(buckets_.size());
    order_for_norm(context);
}

Communicator& GradientSync::group_of(const StepContext& context, Placement placement) {
    return placement == Placement::expert ? context.mesh.replicas() : context.mesh.world();
}

void GradientSync::order_for_norm(const StepContext& context) {
    std::vector<LogicalTensor> tensors = expert_tensors(context.mesh, store_);
    for (const Parameter& parameter : std::as_const(store_).parameters()) {
        if (parameter.placement == Placement::replicated) tensors.push_back(logical_tensor(parameter));
    }
    std::ranges::sort(tensors, {}, &LogicalTensor::hash);
    std::vector<i64> offsets;
    i64 blocks = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        MOESAIC_ASSERT(i == 0 || tensors[i - 1].hash != tensors[i].hash,
                       "two parameters' names hash to {:x}: a name is declared twice", tensors[i].hash);
        offsets.push_back(blocks);
        blocks += tensors[i].blocks();
    }
    norm_offset_.clear();
    for (const Parameter& parameter : std::as_const(store_).parameters()) {
        const u64 hash = hash_of(parameter.name, parameter.is_cut() ? parameter.slice.index : 0);
        const auto found = std::ranges::lower_bound(tensors, hash, {}, &LogicalTensor::hash);
        norm_offset_.push_back(offsets[static_cast<std::size_t>(found - tensors.begin())]);
    }
    norm_sums_.resize(static_cast<std::size_t>(blocks));
}

void GradientSync::segment_ready(StepContext& context, int segment) {
    MOESAIC_ASSERT(segment == next_segment_, "segment {} is ready where {} was to follow", segment,
                   next_segment_);
    --next_segment_;
    store_.fold_segment(context.compute, segment);
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
        if (buckets_[i].first_segment == segment) waiting_.push_back(i);
    }
}

void GradientSync::start(StepContext& context) {
    for (const std::size_t i : waiting_) sum(context, buckets_[i]);
    waiting_.clear();
}

void GradientSync::sum(StepContext& context, const GradientBucket& bucket) {
    const TensorView arena = store_.sums(bucket.placement);
    const TensorView data = arena.flat(bucket.range.begin, bucket.range.size());
    const bool expert = bucket.placement == Placement::expert;
    if (expert && defects_.expert_gradient_factor != 1) {
        context.backend.scale(context.compute, defects_.expert_gradient_factor, data);
    }
    Communicator& group = group_of(context, bucket.placement);
    if (expert && context.mesh.expert_tensor() > 1) sum_over_slices(context, bucket);
    if (group.size() == 1) return;
    context.exchange.wait(context.compute.record());
    group.reduce_scatter_rows(context.exchange, data, bucket.rows,
                              arena.flat(bucket.owned.begin, bucket.owned.size()), ReduceOp::sum,
                              {expert ? "expert gradients" : "gradients"});
}

void GradientSync::sum_over_slices(StepContext& context, const GradientBucket& bucket) {
    const TensorView arena = store_.sums(bucket.placement);
    context.exchange.wait(context.compute.record());
    for (const TensorPiece& piece : pieces_in(store_, bucket.placement, bucket.range)) {
        if (!std::as_const(store_).parameters()[piece.parameter].is_summed_over_slices()) continue;
        context.mesh.slices().all_reduce(context.exchange, arena.flat(piece.range.begin, piece.range.size()),
                                         ReduceOp::sum, {"gradients of all slices"});
    }
}

void GradientSync::finish(StepContext& context) {
    MOESAIC_ASSERT(next_segment_ == -1, "the gradients of segments 0 to {} are not ready", next_segment_);
    next_segment_ = segments_ - 1;
    start(context);
    context.compute.wait(context.exchange.record());
    for (const GradientBucket& bucket : buckets_) {
        store_.round_sums(context.compute, bucket.placement, bucket.owned);
    }
}

void GradientSync::gather_owned(StepContext& context, const GradientBucket& bucket, TensorView arena,
                                std::string_view operation) {
    Communicator& group = group_of(context, bucket.placement);
    if (group.size() == 1) return;
    context.exchange.wait(context.compute.record());
    group.all_gather_rows(context.exchange, arena.flat(bucket.owned.begin, bucket.owned.size()),
                          arena.flat(bucket.range.begin, bucket.range.size()), bucket.rows, {operation});
}

void GradientSync::gather_gradients(StepContext& context) {
    for (const GradientBucket& bucket : buckets_) {
        gather_owned(context, bucket, store_.gradients(bucket.placement), "summed gradients");
    }
    context.compute.wait(context.exchange.record());
}

double GradientSync::gradient_norm(StepContext& context) {
    Backend& backend = context.backend;
    const auto blocks = static_cast<i64>(norm_sums_.size());
    Tensor sums = backend.allocate({blocks}, DType::f64);
    backend.zero(context.compute, sums);
    for (const GradientBucket& bucket : buckets_) {
        if (defects_.norm_skips_experts && bucket.placement == Placement::expert) continue;
        const ConstTensorView arena = store_.gradients(bucket.placement);
        for (const TensorPiece& piece : pieces_in(store_, bucket.placement, bucket.owned)) {
            const Parameter& parameter = std::as_const(store_).parameters()[piece.parameter];
            if (parameter.is_summed_over_slices() && parameter.slice.index > 0) continue;
            const i64 first = norm_offset_[piece.parameter] + piece.first_element / kGradientBlock;
            const i64 count = (piece.range.size() + kGradientBlock - 1) / kGradientBlock;
            backend.block_sum_squares(context.compute, arena.flat(piece.range.begin, piece.range.size()),
                                      kGradientBlock, sums.view().flat(first, count));
        }
    }
    if (context.mesh.world().size() > 1) {  // exact: every block has one contributor, the others add zero
        context.exchange.wait(context.compute.record());
        context.mesh.world().all_reduce(context.exchange, sums, ReduceOp::sum, {"gradient norm"});
        context.compute.wait(context.exchange.record());
    }
    backend.copy(context.compute, sums, view_of(norm_sums_.data(), {blocks}));
    context.compute.synchronize();
    double total = 0;
    for (const double sum : norm_sums_) total += sum;
    return std::sqrt(total);
}

std::vector<ArenaRange> GradientSync::owned(Placement placement) const {
    std::vector<ArenaRange> ranges;
    for (const GradientBucket& bucket : buckets_) {
        if (bucket.placement == placement) ranges.push_back(bucket.owned);
    }
    return ranges;
}

}  // namespace moesaic
