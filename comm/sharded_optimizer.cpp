#include "comm/sharded_optimizer.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace moesaic {

ShardedOptimizer::ShardedOptimizer(StepContext& context, ParameterStore& store, const GradientSync& sync,
                                   const AdamWSettings& settings, int zero)
    : store_(store), settings_(settings), zero_(zero) {
    MOESAIC_ASSERT(zero == 0 || zero == 1, "zero {}", zero);
    i64 elements = 0;
    for (const GradientBucket& bucket : sync.buckets()) {
        const ArenaRange held = zero == 0 ? bucket.range : bucket.owned;
        shards_.push_back({bucket, held, elements, runs_in(bucket.placement, held)});
        elements += held.size();
    }
    const auto state_of = [&](MemoryUse use) {
        const MemoryUseScope scope(context.backend.pool(), use);
        return context.backend.allocate({elements}, store.real());
    };
    first_ = state_of(MemoryUse::moments);
    second_ = state_of(MemoryUse::moments);
    context.backend.zero(context.compute, first_);
    context.backend.zero(context.compute, second_);
    if (store.dtype() == store.real()) return;
    master_ = state_of(MemoryUse::masters);
    if (context.backend.computes()) set_initial_masters();
}

void ShardedOptimizer::set_initial_masters() {
    for (const Shard& shard : shards_) {
        for (const TensorPiece& piece : pieces_in(store_, shard.bucket.placement, shard.held)) {
            const i64 at = shard.state_begin + piece.range.begin - shard.held.begin;
            store_.initial_values(store_.parameters()[piece.parameter], piece.first_element,
                                  master_.view().flat(at, piece.range.size()));
        }
    }
}

std::vector<ShardedOptimizer::Run> ShardedOptimizer::runs_in(Placement placement, ArenaRange range) const {
    std::vector<Run> runs;
    for (const TensorPiece& piece : pieces_in(store_, placement, range)) {
        const bool decays = std::as_const(store_).parameters()[piece.parameter].decays();
        if (!runs.empty() && runs.back().decays == decays) {
            runs.back().range.end = piece.range.end;
        } else {
            runs.push_back({piece.range, decays});
        }
    }
    return runs;
}

void ShardedOptimizer::update(StepContext& context, const Shard& shard, double lr, double clip_factor,
                              i64 step) {
    const WorkScope scope(context.timeline, context.compute, WorkPhase::update);
    const TensorView values = store_.values(shard.bucket.placement);
    const ConstTensorView gradients = store_.gradients(shard.bucket.placement);
    for (const Run& run : shard.runs) {
        const i64 count = run.range.size();
        const i64 state = shard.state_begin + run.range.begin - shard.held.begin;
        const TensorView value = values.flat(run.range.begin, count);
        const TensorView master = master_ ? master_.view().flat(state, count) : value;
        context.backend.adamw(context.compute, {.parameter = master,
                                                .first_moment = first_.view().flat(state, count),
                                                .second_moment = second_.view().flat(state, count),
                                                .gradient = gradients.flat(run.range.begin, count),
                                                .rounded = master_ ? value : TensorView(),
                                                .lr = lr,
                                                .beta1 = settings_.beta1,
                                                .beta2 = settings_.beta2,
                                                .eps = settings_.eps,
                                                .weight_decay = run.decays ? settings_.weight_decay : 0.0,
                                                .grad_scale = clip_factor,
                                                .step = step});
    }
}

void ShardedOptimizer::step(StepContext& context, double lr, double clip_factor, i64 step) {
    if (zero_ == 0) {
        for (const Shard& shard : shards_) {
            GradientSync::gather_owned(context, shard.bucket, store_.gradients(shard.bucket.placement),
                                       "summed gradients");
        }
        context.compute.wait(context.exchange.record());
        for (const Shard& shard : shards_) update(context, shard, lr, clip_factor, step);
        store_.pack(context.compute);
        return;
    }
    for (const Shard& shard : shards_) {  // one bucket's values travel while the next is updated
        update(context, shard, lr, clip_factor, step);
        GradientSync::gather_owned(context, shard.bucket, store_.values(shard.bucket.placement),
                                   "updated parameters");
    }
    context.compute.wait(context.exchange.record());
    store_.pack(context.compute);
}

void ShardedOptimizer::gather_state(StepContext& context, const Shard& shard, const Tensor& state,
                                    TensorView all, Label label) {
    const GradientBucket& bucket = shard.bucket;
    Communicator& group = GradientSync::group_of(context, bucket.placement);
    const i64 offset = shard.held.begin - bucket.range.begin;
    const TensorView mine = all.flat(offset, shard.held.size());
    context.backend.copy(context.compute, state.view().flat(shard.state_begin, shard.held.size()), mine);
    if (zero_ == 1 && group.size() > 1) {
        context.exchange.wait(context.compute.record());
        group.all_gather_rows(context.exchange, mine, all, bucket.rows, label);
        context.compute.wait(context.exchange.record());
    }
}

void ShardedOptimizer::visit_state(StepContext& context, const StateVisitor& visitor) {
    for (const Shard& shard : shards_) {
        const GradientBucket& bucket = shard.bucket;
        const auto gathered = [&](const Tensor& state) {
            Tensor all = context.backend.allocate({bucket.range.size()}, store_.real());
            gather_state(context, shard, state, all, {"optimizer state"});
            return all;
        };
        const Tensor first = gathered(first_), second = gathered(second_);
        Tensor master;
        if (master_) master = gathered(master_);
        context.compute.synchronize();
        for (const TensorPiece& piece : pieces_in(store_, bucket.placement, bucket.range)) {
            const Parameter& parameter = std::as_const(store_).parameters()[piece.parameter];
            const i64 offset = piece.range.begin - bucket.range.begin;
            const auto part = [&](const Tensor& all) {
                return all.view().flat(offset, piece.range.size()).reshaped(parameter.shape);
            };
            visitor(parameter, {master ? part(master) : parameter.value, part(first), part(second)});
        }
    }
}

void ShardedOptimizer::load_state(StepContext& context, const Parameter& parameter,
                                  const ParameterState& state) {
    const std::ptrdiff_t index = &parameter - store_.parameters().data();
    MOESAIC_ASSERT(index >= 0 && index < std::ssize(store_.parameters()), "{} is of another store",
                   parameter.name);
    context.backend.convert(context.compute, state.value, parameter.value);
    const i64 offset = store_.offset_of(static_cast<std::size_t>(index));
    for (const Shard& shard : shards_) {
        if (shard.bucket.placement != parameter.placement) continue;
        const i64 begin = std::max(shard.held.begin, offset);
        const i64 end = std::min(shard.held.end, offset + parameter.shape.elements());
        if (begin >= end) continue;
        const i64 held = shard.state_begin + begin - shard.held.begin;
        const auto keep = [&](ConstTensorView from, Tensor& to) {
            context.backend.copy(context.compute, from.flat(begin - offset, end - begin),
                                 to.view().flat(held, end - begin));
        };
        keep(state.first_moment, first_);
        keep(state.second_moment, second_);
        if (master_) keep(state.value, master_);
    }
    context.compute.synchronize();
}

namespace {

constexpr i64 kMostElementsMoved = i64{1} << 30;  // in one exchange: MPI counts to 2^31

/// The first elements of somebody's memory, read as another type.
TensorView borrowed(TensorView memory, i64 elements, DType dtype) {
    MOESAIC_ASSERT(elements * size_of(dtype) <= memory.bytes(), "{} elements of {} in {} bytes", elements,
                   name_of(dtype), memory.bytes());
    return {{memory.data, dtype, memory.device, Shape{elements}}};
}

/// Collective over mesh.same_slice(). `arena_begin` is where `from` begins in the arena; `send` and `recv`
/// have room for as much. Returns what has arrived, piece after piece; `recv` may be the memory of `from`.
TensorView exchange_pieces(StepContext& context, const ExpertMoves& moves, ConstTensorView from,
                           i64 arena_begin, TensorView send, TensorView recv) {
    i64 sent = 0;
    for (const ArenaRange& piece : moves.leaving) {
        context.backend.copy(context.compute, from.flat(piece.begin - arena_begin, piece.size()),
                             send.flat(sent, piece.size()));
        sent += piece.size();
    }
    const TensorView arrived = recv.flat(0, std::reduce(moves.recv.begin(), moves.recv.end()));
    context.exchange.wait(context.compute.record());
    context.mesh.same_slice().all_to_all_rows(context.exchange, send.flat(0, sent), moves.send, arrived,
                                              moves.recv, {kMovedExpertsPhase});
    context.compute.wait(context.exchange.record());
    return arrived;
}

}  // namespace

void ShardedOptimizer::move_state(StepContext& context, ArenaRange range, const ExpertMoves& moves,
                                  Tensor& state) {
    MOESAIC_ASSERT(!store_.sums_once(), "sums are no memory of their own: {} elements", range.size());
    const auto memory = [&](TensorView arena) {
        return borrowed(arena.flat(range.begin, range.size()), range.size(), store_.real());
    };
    const TensorView all = memory(store_.sums(Placement::expert));
    const TensorView send = memory(store_.gradients(Placement::expert));
    const std::vector<const Shard*> shards = expert_shards_in(range);
    for (const Shard* shard : shards) {
        const ArenaRange bucket = shard->bucket.range;
        gather_state(context, *shard, state, all.flat(bucket.begin - range.begin, bucket.size()),
                     {kMovedExpertsPhase});
    }
    const TensorView arrived = exchange_pieces(context, moves, all, range.begin, send, all);
    i64 at = 0;
    for (const ArenaRange& piece : moves.arriving) {  // of which this replica keeps what it holds
        for (const Shard* shard : shards) {
            const i64 begin = std::max(piece.begin, shard->held.begin);
            const i64 end = std::min(piece.end, shard->held.end);
            if (begin >= end) continue;
            context.backend.copy(
                context.compute, arrived.flat(at + begin - piece.begin, end - begin),
                state.view().flat(shard->state_begin + begin - shard->held.begin, end - begin));
        }
        at += piece.size();
    }
}

void ShardedOptimizer::move_values(StepContext& context, ArenaRange range, const ExpertMoves& moves) {
    const TensorView values = store_.values(Placement::expert);
    const auto memory = [&](TensorView arena) {
        return borrowed(arena.flat(range.begin, range.size()), range.size(), values.dtype);
    };
    const TensorView arrived =
        exchange_pieces(context, moves, values, 0, memory(store_.gradients(Placement::expert)),
                        memory(store_.sums(Placement::expert)));
    i64 at = 0;
    for (const ArenaRange& piece : moves.arriving) {
        context.backend.copy(context.compute, arrived.flat(at, piece.size()),
                             values.flat(piece.begin, piece.size()));
        at += piece.size();
    }
}

std::vector<const ShardedOptimizer::Shard*> ShardedOptimizer::expert_shards_in(ArenaRange range) const {
    std::vector<const Shard*> shards;
    for (const Shard& shard : shards_) {
        const ArenaRange bucket = shard.bucket.range;
        if (shard.bucket.placement == Placement::expert && bucket.begin >= range.begin &&
            bucket.end <= range.end)
            shards.push_back(&shard);
    }
    return shards;
}

std::vector<ArenaRange> ShardedOptimizer::ranges_to_move() const {
    std::vector<ArenaRange> ranges;  // buckets come from the end of the arena to its beginning
    for (const Shard& shard : shards_) {
        if (shard.bucket.placement != Placement::expert) continue;
        const ArenaRange bucket = shard.bucket.range;
        if (!ranges.empty() && ranges.back().end - bucket.begin <= kMostElementsMoved) {
            ranges.back().begin = bucket.begin;
        } else {
            ranges.push_back(bucket);
        }
    }
    return ranges;
}

void ShardedOptimizer::move_experts(StepContext& context, GradientSync& sync, const NewPlacements& next) {
    for (const ArenaRange& range : ranges_to_move()) {
        const ExpertMoves moves = expert_moves(context.mesh, store_, next, range);
        if (moves.tensors == 0) continue;
        move_values(context, range, moves);
        move_state(context, range, moves, first_);
        move_state(context, range, moves, second_);
        if (master_) move_state(context, range, moves, master_);
    }
    rename_experts(context.mesh, next, store_);
    for (const auto& [layer, placement] : next) context.mesh.place_experts(layer, placement);
    sync.experts_moved(context);
    store_.pack(context.compute);
}

i64 ShardedOptimizer::moment_bytes() const {
    return first_.view().bytes() + second_.view().bytes();
}

i64 ShardedOptimizer::master_bytes() const {
    return master_.view().bytes();
}

}  // namespace moesaic
