#include "launch/training_step.h"

#include <algorithm>
#include <numeric>

#include "launch/adds_seconds.h"
#include "launch/batch_sums.h"
#include "launch/faults/fault_injector.h"
#include "runtime/base/log.h"
#include "runtime/schedule.h"

namespace moesaic {

namespace {

/// What a record holds of one MoE layer's router: sums over a micro-batch.
enum RouterSum : i64 { kWeights, kChoices, kFirstWeights, kEntropies, kTokens, kRouterSums };

/// Where things lie in what one rank contributes to the numbers of a step; flat, so that one all-gather
/// carries it all: per micro-step [aux, z, importance, load, the sums of each MoE layer's router, loss of
/// each sequence, its scores where asked for], and the rank's note.
struct RecordLayout {
    static constexpr i64 routers = 4;
    static constexpr i64 unit_numbers = 1 + 2 * static_cast<i64>(kCertifiedLosses);  // of UnitSums
    RecordLayout(const MicroBatches& batches, i64 moe_layers, bool scored)
        : losses(routers + kRouterSums * moe_layers),
          units(losses + batches.size),
          stride(units + (scored ? batches.size * unit_numbers : 0)),
          note(batches.micro_steps() * stride) {}
    i64 losses, units, stride, note;
    [[nodiscard]] i64 size() const { return note + kRankNoteNumbers; }
};

Schedule schedule_of(const Config& config) {
    const ScheduleConfig& given = config.optimizer.schedule;
    const ScheduleKind kind = given.kind == "cosine" ? ScheduleKind::cosine
                              : given.kind == "wsd"  ? ScheduleKind::wsd
                                                     : ScheduleKind::constant;
    return {kind, config.optimizer.lr, given.warmup, given.floor, config.train.steps};
}

/// Adds to `counts`: [MoE layers, E] choices, then [MoE layers] dropped ones.
void add_counts(const std::vector<RouterStatistics>& routers, std::vector<i64>& counts) {
    auto count = counts.begin();
    for (const RouterStatistics& router : routers) {
        for (const i64 choices : router.counts) *count++ += choices;
    }
    for (const RouterStatistics& router : routers) *count++ += router.dropped;
}

void write_router(const RouterStatistics& router, double* sums) {
    sums[kWeights] = router.weight_sum;
    sums[kChoices] = static_cast<double>(router.choices);
    if (!router.entropy_sum) return;
    sums[kFirstWeights] = *router.first_weight_sum;
    sums[kEntropies] = *router.entropy_sum;
    sums[kTokens] = static_cast<double>(router.tokens);  // of a distribution
}

RouterMeans means_of(const double* sums) {
    RouterMeans means;
    if (sums[kChoices] > 0) means.weight = sums[kWeights] / sums[kChoices];
    if (sums[kTokens] > 0) {
        means.first_weight = sums[kFirstWeights] / sums[kTokens];
        means.entropy = sums[kEntropies] / sums[kTokens];
    }
    return means;
}

void write_units(const UnitSums& units, double* numbers) {
    *numbers++ = units.units;
    numbers = std::copy(units.sum.begin(), units.sum.end(), numbers);
    std::copy(units.squares.begin(), units.squares.end(), numbers);
}

UnitSums read_units(const double* numbers) {
    UnitSums units;
    units.units = *numbers++;
    std::copy_n(numbers, kCertifiedLosses, units.sum.begin());
    std::copy_n(numbers + kCertifiedLosses, kCertifiedLosses, units.squares.begin());
    return units;
}

void set_dropped_shares(StepResult& result) {
    if (result.routers.empty()) return;
    const std::size_t experts = result.expert_counts.size() / result.routers.size();
    auto first = result.expert_counts.begin();
    for (std::size_t layer = 0; layer < result.routers.size(); ++layer) {
        const auto last = first + static_cast<std::ptrdiff_t>(experts);
        const i64 choices = std::reduce(first, last, i64{0});
        if (choices > 0)
            result.routers[layer].dropped =
                static_cast<double>(result.dropped[layer]) / static_cast<double>(choices);
        first = last;
    }
}

}  // namespace

TrainingStep::TrainingStep(RankRuntime& runtime, const Config& config, BatchSource batches)
    : runtime_(runtime),
      config_(config),
      batches_(std::move(batches)),
      micro_batches_(micro_batches_of(config, runtime.model.spec().kind, runtime.mesh->world().size())),
      windows_(*runtime.backend, *runtime.mesh, runtime.model.spec(), runtime.store.dtype(),
               micro_batches_.size, config.task.data.document_mask) {
    const std::string advice = advice_on_idle_ranks(micro_batches_);
    if (!advice.empty() && runtime.mesh->world().rank() == 0) log_message(LogLevel::warn, advice);
    if (config.parallel.placement.kind == "load_aware" && runtime.mesh->expert_parallel() > 1)
        rebalancer_.emplace(runtime, config.parallel.placement);
}

TrainingStep::TrainingStep(RankRuntime& runtime, const Config& config, const TaskData& data)
    : TrainingStep(runtime, config, [&config, &data](i64 step, i64 first, i64 count, WindowBuffer windows) {
          data.training_batch(static_cast<u64>(config.run.seed), step, config.train.batch_sequences, first,
                              count, windows);
      }) {}

void TrainingStep::record_routing(const std::string& file) {
    const ModelSpec& spec = runtime_.model.spec();
    trace_.emplace(file, RoutingTraceShape{config_.train.steps, spec.expert_layers(),
                                           config_.train.batch_sequences * spec.seq_len, spec.top_k});
}

void TrainingStep::write_trace(StepContext& context, MicroBatches::Part part, const ModelSaved& saved) {
    std::vector<i32> experts;
    i64 layer = 0;
    for (const Block::Saved& block : saved.blocks) {
        const ConstTensorView chosen = block.experts.routing.expert;
        if (!block.experts.routing.expert) continue;  // no experts in this block
        experts.resize(static_cast<std::size_t>(chosen.elements()));
        if (!experts.empty())
            context.backend.copy(context.compute, chosen, view_of(experts.data(), chosen.shape));
        context.compute.synchronize();
        trace_->write(context.step, layer++, part.first * runtime_.model.spec().seq_len, experts);
    }
}

Batch TrainingStep::load_batch(i64 step, MicroBatches::Part part) {
    const WorkScope scope(&runtime_.timeline, *runtime_.compute, WorkPhase::data);
    batches_(step + batch_shift_, part.first, part.count, windows_.host());
    return windows_.load(part.count, part.first);
}

i64 TrainingStep::count_targets(i64 step) {
    const i64 all = config_.train.batch_sequences * runtime_.model.spec().targets_per_sequence();
    if (!config_.task.data.document_mask) return all;
    std::vector<i64> targets{0};
    for (i64 i = 0; i < micro_batches_.micro_steps(); ++i) {
        const MicroBatches::Part part = micro_batches_.part(i, runtime_.mesh->world().rank());
        batches_(step + batch_shift_, part.first, part.count, windows_.host());
        for (i64 s = 0; s < part.count; ++s) targets[0] += windows_.targets(s);
    }
    runtime_.mesh->world().all_reduce(*runtime_.exchange, view_of(targets.data(), {1}), ReduceOp::sum,
                                      {"targets of the batch"});
    runtime_.exchange->synchronize();
    return targets[0];
}

void TrainingStep::sum_counts(std::vector<i64>& counts) {
    runtime_.mesh->world().all_reduce(*runtime_.exchange,
                                      view_of(counts.data(), {static_cast<i64>(counts.size())}),
                                      ReduceOp::sum, {"expert loads"});
    runtime_.exchange->synchronize();
}

bool TrainingStep::balances_globally() const {
    return runtime_.model.spec().balance.scope == BalanceScope::global;
}

void TrainingStep::look_ahead(i64 step, GlobalBatch& global) {
    StepContext context = runtime_.context(Phase::count_only, step);
    Communicator& world = runtime_.mesh->world();
    BatchSums sums(micro_batches_, runtime_.model.spec());
    for (i64 i = 0; i < micro_batches_.micro_steps(); ++i) {
        const Batch batch = load_batch(step, micro_batches_.part(i, world.rank()));
        sums.add(i, runtime_.model.count_choices(context, batch));
    }
    sums.gather(world, *runtime_.exchange, global);
}

void TrainingStep::set_rank_loads(StepResult& result) const {
    const ModelSpec& spec = runtime_.model.spec();
    const Mesh& mesh = *runtime_.mesh;
    auto counts = std::span<const i64>(result.expert_counts);
    for (int layer = 0; layer < spec.layers; ++layer) {
        if (!spec.has_experts(layer)) continue;
        const auto experts = static_cast<std::size_t>(spec.experts);
        MOESAIC_ASSERT(counts.size() >= experts, "{} counts left for the {} experts of layer {}",
                       counts.size(), experts, layer);
        result.rank_max_over_mean.push_back(rank_load_max_over_mean(
            mesh.placement(layer), mesh.copies(layer), counts.first(experts), mesh.expert_parallel()));
        counts = counts.subspan(experts);
    }
    MOESAIC_ASSERT(counts.empty(), "{} counts of experts beyond those of {} layers", counts.size(),
                   spec.layers);
}

StepResult TrainingStep::forward_backward(i64 step, const RankNote& note) {
    if (faults_ != nullptr) {
        faults_->before_step(runtime_, step);
        micro_batches_.idle_rank = faults_->idle_rank(step);
    }
    search_.begin();
    const i64 moe_layers = runtime_.model.spec().expert_layers();
    const i64 count_slots = moe_layers * runtime_.mesh->total_experts();
    GlobalBatch global;
    global.tokens = config_.train.batch_sequences * runtime_.model.spec().seq_len;
    global.targets = count_targets(step);
    if (balances_globally() && micro_batches_.micro_steps() > 1) look_ahead(step, global);
    runtime_.store.zero_gradients(*runtime_.compute);
    const RecordLayout layout(micro_batches_, moe_layers, scales_.has_value());
    std::vector<double> record(static_cast<std::size_t>(layout.size()), 0.0);
    std::vector<i64> counts(static_cast<std::size_t>(count_slots + moe_layers), 0);
    for (i64 i = 0; i < micro_batches_.micro_steps(); ++i) {
        micro_step(step, i, global, record, counts);
    }
    StepContext context = runtime_.context(Phase::train, step);
    runtime_.gradient_sync->finish(context);
    std::copy_n(&note.stop, kRankNoteNumbers, record.begin() + layout.note);
    sum_counts(counts);
    StepResult result = gather_results(record);
    result.dropped.assign(counts.begin() + count_slots, counts.end());
    counts.resize(static_cast<std::size_t>(count_slots));
    result.expert_counts = counts;
    set_dropped_shares(result);
    set_rank_loads(result);
    expert_counts_ = std::move(counts);
    result.targets = global.targets;
    result.loss = std::accumulate(result.sequence_loss.begin(), result.sequence_loss.end(), 0.0) /
                  static_cast<double>(std::max<i64>(global.targets, 1));
    result.grad_norm = runtime_.gradient_sync->gradient_norm(context);
    return result;
}

void TrainingStep::micro_step(i64 step, i64 index, GlobalBatch& global, std::vector<double>& record,
                              std::vector<i64>& counts) {
    const i64 seq_len = runtime_.model.spec().seq_len;
    const RecordLayout layout(micro_batches_, runtime_.model.spec().expert_layers(), scales_.has_value());
    const MicroBatches::Part part = micro_batches_.part(index, runtime_.mesh->world().rank());
    StepContext context = runtime_.context(Phase::train, step);
    context.observer = observer_;
    const bool last = index + 1 == micro_batches_.micro_steps();
    if (last) context.gradients = runtime_.gradient_sync.get();
    ModelSaved saved;
    const ForwardResult result = runtime_.model.forward(context, load_batch(step, part), saved);
    if (trace_) write_trace(context, part, saved);
    runtime_.compute->synchronize();
    if (balances_globally() && micro_batches_.micro_steps() == 1) {
        BatchSums sums(micro_batches_, runtime_.model.spec());
        sums.add(0, result.routers);
        sums.gather(runtime_.mesh->world(), *runtime_.exchange, global);
    }
    double* const mine = record.data() + index * layout.stride;
    const BalanceTerms balance = runtime_.model.balance(saved, global);
    mine[0] = balance.aux;
    mine[1] = balance.z;
    mine[2] = balance.importance;
    mine[3] = balance.load;
    for (i64 s = 0; s < part.count; ++s) {
        const double* const losses = result.token_loss.as<double>() + s * seq_len;
        mine[layout.losses + s] = std::accumulate(losses, losses + seq_len, 0.0);
    }
    if (scales_) score_part(step, part, result, mine + layout.units);
    search_.look_at_forward(context, runtime_.model.spec(), saved,
                            {mine + layout.losses, static_cast<std::size_t>(part.count)}, index);
    add_counts(result.routers, counts);
    double* sums = mine + RecordLayout::routers;
    for (const RouterStatistics& router : result.routers) {
        write_router(router, sums);
        sums += kRouterSums;
    }
    runtime_.model.backward(context, saved, global, [&](int segment) {
        if (last) {
            const int layer = segment - 1;  // the first segment is the embedding
            if (faults_ != nullptr) faults_->gradients_ready(context, runtime_.store, layer);
            if (runtime_.copied_experts) runtime_.copied_experts->segment_ready(context, segment);
            runtime_.gradient_sync->segment_ready(context, segment);
        } else {
            runtime_.store.fold_segment(context.compute, segment);
        }
    });
    runtime_.compute->synchronize();  // the batch's memory is filled anew for the next micro-step
}

void TrainingStep::score_part(i64 step, const MicroBatches::Part& part, const ForwardResult& result,
                              double* numbers) {
    const AddsSeconds watch(unit_seconds_);
    const i64 seq_len = runtime_.model.spec().seq_len;
    const auto length = static_cast<std::size_t>(seq_len);
    for (i64 s = 0; s < part.count; ++s, numbers += RecordLayout::unit_numbers) {
        const double* const losses = result.token_loss.as<double>() + s * seq_len;
        const double* const margins = result.token_margin.as<double>() + s * seq_len;
        write_units(sum_units(step, part.first + s, {losses, length}, {margins, length}), numbers);
    }
}

UnitSums TrainingStep::sum_units(i64 step, i64 sequence, std::span<const double> losses,
                                 std::span<const double> margins) const {
    UnitSums sums;
    if (!unit_ranges_) {
        sums.add(score_unit(losses, margins, *scales_), *scales_);
        return sums;
    }
    for (const TargetRange& range : unit_ranges_(step, sequence)) {
        const auto first = static_cast<std::size_t>(range.first),
                   count = static_cast<std::size_t>(range.count);
        sums.add(score_unit(losses.subspan(first, count), margins.subspan(first, count), *scales_), *scales_);
    }
    return sums;
}

StepResult TrainingStep::gather_results(std::vector<double>& mine) {
    Communicator& world = runtime_.mesh->world();
    const RecordLayout layout(micro_batches_, runtime_.model.spec().expert_layers(), scales_.has_value());
    std::vector<double> all(mine.size() * static_cast<std::size_t>(world.size()));
    world.all_gather(*runtime_.exchange, view_of(mine.data(), {layout.size()}),
                     view_of(all.data(), {layout.size() * world.size()}), {"losses of the step"});
    runtime_.exchange->synchronize();
    StepResult result;
    result.sequence_loss.reserve(static_cast<std::size_t>(micro_batches_.sequences));
    std::vector<double> routers(static_cast<std::size_t>(layout.losses - RecordLayout::routers), 0.0);
    // Micro-batch order, not rank order: these sums are the same bits on every layout.
    for (i64 i = 0; i < micro_batches_.micro_steps(); ++i) {
        for (int rank = 0; rank < world.size(); ++rank) {
            const double* const part = all.data() + rank * layout.size() + i * layout.stride;
            result.loss_aux += part[0];
            result.loss_z += part[1];
            result.loss_importance += part[2];
            result.loss_load += part[3];
            const i64 count = micro_batches_.part(i, rank).count;
            result.sequence_loss.insert(result.sequence_loss.end(), part + layout.losses,
                                        part + layout.losses + count);
            for (i64 s = 0; scales_ && s < count; ++s)
                result.unit_sums.push_back(read_units(part + layout.units + s * RecordLayout::unit_numbers));
            for (std::size_t j = 0; j < routers.size(); ++j) routers[j] += part[RecordLayout::routers + j];
        }
    }
    for (std::size_t first = 0; first < routers.size(); first += kRouterSums) {
        result.routers.push_back(means_of(routers.data() + first));
    }
    result.notes.resize(static_cast<std::size_t>(world.size()));
    for (int rank = 0; rank < world.size(); ++rank) {
        RankNote& note = result.notes[static_cast<std::size_t>(rank)];
        std::copy_n(all.data() + rank * layout.size() + layout.note, kRankNoteNumbers, &note.stop);
        if (note.stop != 0) result.stop_requested = true;
    }
    return result;
}

NonfiniteOrigin TrainingStep::find_nonfinite(i64 step) {
    StepContext context = runtime_.context(Phase::train, step);
    std::optional<double> limit;
    if (config_.train.determinism == "elastic")
        limit = ParameterStore::kLargestExact /
                static_cast<double>(
                    MicroBatches{config_.train.batch_sequences, config_.train.micro_sequences}.count());
    return search_.find(context, runtime_.store, *runtime_.gradient_sync, limit);
}

double TrainingStep::learning_rate_of(i64 step) const {
    return learning_rate(schedule_of(config_), step);
}

double TrainingStep::update(i64 step, double grad_norm, i64 skipped) {
    const double lr = learning_rate_of(step);
    const std::optional<double> clip = config_.optimizer.clip;
    const double factor = clip ? std::min(1.0, *clip / (grad_norm + 1e-6)) : 1.0;
    StepContext context = runtime_.context(Phase::train, step);
    runtime_.optimizer->step(context, lr, factor, step - skipped);
    runtime_.model.update_routers(context, expert_counts_);
    moved_.reset();
    if (rebalancer_ && step < config_.train.steps) moved_ = rebalancer_->after_step(step, expert_counts_);
    if (runtime_.copied_experts) runtime_.copied_experts->refresh(context);
    return lr;
}

}  // namespace moesaic
