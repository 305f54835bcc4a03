#include "launch/layout_check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

#include "comm/routing.h"
#include "comm/thread_communicator.h"
#include "launch/logical_gradients.h"
#include "launch/training_step.h"
#include "launch/weights_checksum.h"
#include "layers/moe_layer.h"
#include "runtime/base/checksum.h"
#include "runtime/base/run_context.h"
#include "runtime/base/worse.h"

namespace moesaic {

namespace {

/// What one run of one layout leaves behind.
struct Outcome {
    StepResult first;            // step 1
    std::vector<double> losses;  // steps 1...
    std::vector<u64> routing;    // steps 1..., of all ranks' choices (RoutingChecksum)
    std::vector<double> rank_norms;
    LogicalTensors gradients;     // step 1
    u64 weights = 0;              // checksum after the last step
    bool own_rows_first = false;  // as ExchangeSizes has it
};

struct LayoutRun {
    int world = 1;
    RuntimeOptions options;
};

/// Adds up a checksum of every choice that is kept: (layer, token of the global batch, expert). Two runs
/// route a batch alike where the sums over their ranks agree; counts of tokens would not tell experts that
/// choose their tokens, of which each has as many whatever happens.
class RoutingChecksum final : public RoutingObserver {
  public:
    explicit RoutingChecksum(const RankRuntime& runtime) : runtime_(runtime) {
        micro_steps_.resize(static_cast<std::size_t>(runtime.model.spec().layers));
    }

    void routed(StepContext& context, int layer, const Routing& routing) override {
        const ModelSpec& spec = runtime_.model.spec();
        const Communicator& world = runtime_.mesh->world();
        const i64 micro_step = micro_steps_[static_cast<std::size_t>(layer)]++;
        const i64 first = (micro_step * world.size() + world.rank()) * spec.micro_sequences * spec.seq_len;
        std::vector<i32> experts(static_cast<std::size_t>(routing.expert.elements()));
        if (experts.empty()) return;
        context.backend.copy(context.compute, routing.expert,
                             view_of(experts.data(), routing.expert.shape()));
        context.compute.synchronize();
        for (i64 i = 0; i < std::ssize(experts); ++i) {
            const i64 expert = experts[static_cast<std::size_t>(i)];
            if (expert < 0) continue;  // dropped
            const std::array<i64, 3> choice{layer, first + i / routing.expert.cols(), expert};
            sum_ += checksum_of(choice.data(), sizeof choice);
        }
    }

    /// Of this rank's choices since the last call, modulo 2^64.
    u64 take() {
        std::ranges::fill(micro_steps_, 0);
        return std::exchange(sum_, 0);
    }

  private:
    const RankRuntime& runtime_;
    std::vector<i64> micro_steps_;  // by layer, since the last call
    u64 sum_ = 0;
};

Outcome run_layout(const RunSetup& setup, const LayoutRun& run, i64 steps) {
    Outcome outcome;
    outcome.rank_norms.resize(static_cast<std::size_t>(run.world));
    outcome.routing.resize(static_cast<std::size_t>(steps));
    std::mutex mutex;
    const auto body = [&](Communicator& world) {
        RankRuntime runtime(setup.config, setup.spec, world, run.options);
        TrainingStep training(runtime, setup.config, *setup.dataset);
        RoutingChecksum routing(runtime);
        training.watch_routing(&routing);
        for (i64 step = 1; step <= steps; ++step) {
            run_context().step = step;
            const StepResult result = training.forward_backward(step);
            LogicalTensors gradients;
            if (step == 1) gradients = gather_gradients(runtime);
            training.update(step, result.grad_norm);
            const std::lock_guard lock(mutex);
            outcome.routing[static_cast<std::size_t>(step - 1)] += routing.take();
            if (step == 1) outcome.rank_norms[static_cast<std::size_t>(world.rank())] = result.grad_norm;
            if (world.rank() != 0) continue;
            outcome.losses.push_back(result.loss);
            if (step == 1) {
                outcome.first = result;
                outcome.gradients = std::move(gradients);
            }
        }
        const u64 weights = weights_checksum(runtime);
        if (world.rank() != 0) return;
        outcome.weights = weights;
        outcome.own_rows_first =
            setup.spec.routes_rows() &&
            exchange_sizes(setup.spec, *runtime.mesh, runtime.store.dtype()).own_rows_first;
    };
    run_ranks(run.world, body, setup.config.parallel.timeout_seconds);
    return outcome;
}

double relative_difference(double value, double reference) {
    if (value == reference) return 0;
    return std::abs(value - reference) / std::max(std::abs(reference), 1e-300);
}

/// The worst of the four balance losses.
double balance_difference(const StepResult& mine, const StepResult& single) {
    double worst = 0;
    for (const auto loss :
         {&StepResult::loss_aux, &StepResult::loss_z, &StepResult::loss_importance, &StepResult::loss_load})
        worst = worse(worst, relative_difference(mine.*loss, single.*loss));
    return worst;
}

double relative_l2(const std::vector<double>& value, const std::vector<double>& reference) {
    if (value.size() != reference.size()) return std::numeric_limits<double>::infinity();
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < value.size(); ++i) {
        difference += (value[i] - reference[i]) * (value[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    if (difference == 0) return 0;
    return std::sqrt(difference / std::max(norm, 1e-300));
}

struct WorstTensor {
    double difference = 0;
    std::string name;
};

/// The tensor of `mine` that differs most from that of `reference`.
WorstTensor worst_tensor(const LogicalTensors& mine, const LogicalTensors& reference) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    WorstTensor worst{mine.size() == reference.size() ? 0 : kInfinity, "the set of tensors"};
    for (const auto& [name, values] : reference) {
        const auto found = mine.find(name);
        if (found == mine.end()) return {kInfinity, name + " (missing)"};
        const double difference = relative_l2(found->second, values);
        if (!std::isnan(worst.difference) && !(difference <= worst.difference)) worst = {difference, name};
    }
    return worst;
}

bool same_experts(const LogicalTensors& mine, const LogicalTensors& single) {
    return std::all_of(single.begin(), single.end(), [&](const auto& tensor) {
        if (tensor.first.find(".experts.") == std::string::npos) return true;
        const auto found = mine.find(tensor.first);
        return found != mine.end() && found->second == tensor.second;
    });
}

/// All tensors one after the other.
std::vector<double> joined(const LogicalTensors& tensors) {
    std::vector<double> values;
    for (const auto& [name, one] : tensors) values.insert(values.end(), one.begin(), one.end());
    return values;
}

void compare_gradients(LayoutResult& result, const LogicalTensors& mine, const LogicalTensors& single,
                       const LogicalTensors& reference) {
    const WorstTensor exact = worst_tensor(mine, reference), layout = worst_tensor(mine, single);
    result.gradient_difference = exact.difference;
    result.worst_tensor = exact.name;
    result.layout_difference = layout.difference;
    result.worst_layout_tensor = layout.name;
}

/// What has to hold, in the order in which a person wants to hear what does not.
std::string verdict(const LayoutResult& result, const LayoutTolerances& limits) {
    const std::string single =
        result.smallest == 1 ? "the one-rank run" : fmt::format("the run on {} ranks", result.smallest);
    if (result.nonfinite_at != 0)
        return fmt::format("the loss of step {} is not finite, and says nothing", result.nonfinite_at);
    if (limits.same_bits && !result.loss_bits) return "step 1's losses are not the bits of " + single;
    if (!(result.loss_difference <= limits.loss)) return "step 1's loss depends on the layout";
    if (!result.routing_equal) return "routing differs from " + single;
    if (!result.norm_same_on_ranks) return "ranks clip by different norms";
    if (!(result.balance_difference <= limits.loss)) return "balance losses depend on the layout";
    if (!(result.layout_difference <= limits.layout))
        return "gradient of " + result.worst_layout_tensor + " depends on the layout";
    if (!(result.gradient_difference <= limits.exact))
        return "gradient of " + result.worst_tensor + " is wrong";
    if (!(result.norm_difference <= limits.exact)) return "the clip norm is wrong";
    if (limits.same_bits && !result.expert_bits.value_or(true))
        return "expert gradients are not the bits of " + single;
    if (limits.elastic && !result.weight_bits) return "the weights are not the bits of " + single;
    if (result.later_loss_difference <= limits.loss) return "";
    // One choice that falls the other way at a near tie moves the weights by more than rounding ever does.
    if (result.routing_differs_at == 0) return "losses drift apart after step 1";
    return fmt::format("losses drift apart after step 1; routing differs from step {} on",
                       result.routing_differs_at);
}

LayoutResult compare(const LayoutRun& run, const Outcome& mine, const Outcome& single,
                     const Outcome& reference, const LayoutTolerances& tolerances) {
    LayoutResult result;
    result.world = run.world;
    result.expert_parallel = *run.options.expert_parallel;
    result.smallest = *run.options.expert_tensor;
    result.loss = mine.first.loss;
    result.loss_aux = mine.first.loss_aux;
    result.loss_z = mine.first.loss_z;
    result.grad_norm = mine.first.grad_norm;
    result.loss_bits =
        mine.first.sequence_loss == single.first.sequence_loss && mine.first.loss == single.first.loss;
    result.loss_difference = relative_difference(mine.first.loss, single.first.loss);
    const auto nonfinite =
        std::ranges::find_if_not(mine.losses, [](double loss) { return std::isfinite(loss); });
    if (nonfinite != mine.losses.end()) result.nonfinite_at = nonfinite - mine.losses.begin() + 1;
    result.routing_equal =
        mine.routing.front() == single.routing.front() && mine.first.dropped == single.first.dropped;
    result.routing_as_reference = mine.routing.front() == reference.routing.front();
    result.norm_same_on_ranks = std::all_of(mine.rank_norms.begin(), mine.rank_norms.end(),
                                            [&](double norm) { return norm == mine.rank_norms[0]; });
    result.balance_difference = balance_difference(mine.first, single.first);
    // Where a near tie fell the other way in f64, gradients are only comparable with the one-rank run; in
    // bf16 some always do, and the tolerance has room for them.
    const Outcome& truth = result.routing_as_reference || tolerances.whole ? reference : single;
    result.norm_difference = relative_difference(mine.first.grad_norm, truth.first.grad_norm);
    compare_gradients(result, mine.gradients, single.gradients, truth.gradients);
    if (result.world == result.expert_parallel * result.smallest &&
        (tolerances.elastic || !mine.own_rows_first))
        result.expert_bits = same_experts(mine.gradients, single.gradients);
    if (tolerances.whole) {
        result.gradient_difference = relative_l2(joined(mine.gradients), joined(truth.gradients));
        result.worst_tensor = "all tensors";
    }
    for (std::size_t i = 1; i < mine.losses.size(); ++i) {
        result.later_loss_difference =
            worse(result.later_loss_difference, relative_difference(mine.losses[i], single.losses[i]));
    }
    result.weight_bits = mine.weights == single.weights;
    const auto differs = std::ranges::mismatch(mine.routing, single.routing).in1;
    if (differs != mine.routing.end()) result.routing_differs_at = differs - mine.routing.begin() + 1;
    result.why = verdict(result, tolerances);
    result.ok = result.why.empty();
    return result;
}

}  // namespace

LayoutTolerances layout_tolerances(DType dtype) {
    if (dtype == DType::f64) return {.exact = 1e-10, .layout = 1e-10, .loss = 1e-10};
    if (dtype == DType::bf16) return {.exact = 0.02, .layout = 1e-6, .loss = 1e-5, .whole = true};
    return {.exact = 1e-5, .layout = 1e-6, .loss = 1e-5};
}

namespace {

int slices_of(const RunSetup& run) {
    return static_cast<int>(run.config.parallel.expert_tensor);
}

/// Of one that divides the world evenly; empty: it runs.
std::string why_left_out(const RunSetup& run, int world, int expert_parallel) {
    const i64 experts = run.spec.experts;
    if (experts == 0 && expert_parallel > 1) return "a dense model has no experts to share out";
    if (experts % expert_parallel != 0) return fmt::format("{} experts cannot be shared out evenly", experts);
    if (run.spec.kind == ModelKind::momlp && expert_parallel != world)
        return "a momlp's experts are shared out to all ranks";
    return "";
}

/// Expert-parallel sizes that divide the world evenly.
std::vector<int> expert_parallel_sizes(int world, int slices) {
    std::vector<int> sizes;
    for (int size = 1; size <= world; ++size)
        if (world % (slices * size) == 0) sizes.push_back(size);
    return sizes;
}

}  // namespace

std::vector<LeftOutLayout> left_out_layouts(const RunSetup& run, const std::vector<int>& worlds) {
    std::vector<LeftOutLayout> left_out;
    for (const int world : worlds) {
        if (world % slices_of(run) != 0)
            left_out.push_back(
                {world, {}, fmt::format("no multiple of parallel.expert_tensor: {}", slices_of(run))});
        for (const int expert_parallel : expert_parallel_sizes(world, slices_of(run))) {
            const std::string why = why_left_out(run, world, expert_parallel);
            if (!why.empty()) left_out.push_back({world, expert_parallel, why});
        }
    }
    return left_out;
}

std::string text_of(const LeftOutLayout& layout) {
    return fmt::format(
        "{} rank{}{}: {}", layout.world, layout.world == 1 ? "" : "s",
        layout.expert_parallel ? fmt::format(", expert parallel {}", *layout.expert_parallel) : "",
        layout.why);
}

namespace {

/// Throws UserError where no layout of the worlds runs.
void expect_some(const RunSetup& run, const std::vector<int>& worlds) {
    const std::vector<LeftOutLayout> left_out = left_out_layouts(run, worlds);
    for (const int world : worlds) {
        for (const int size : expert_parallel_sizes(world, slices_of(run)))
            if (why_left_out(run, world, size).empty()) return;
    }
    std::string text = "--layouts: the configuration runs on none of them";
    for (const LeftOutLayout& one : left_out) text += "\n  " + text_of(one);
    throw UserError(text);
}

}  // namespace

std::vector<LayoutResult> check_layouts(const RunSetup& run, const LayoutCheckOptions& options) {
    const DType dtype = precision_of(run.config);
    const int slices = slices_of(run);
    expect_some(run, options.worlds);
    LayoutRun smallest;
    smallest.world = slices;
    smallest.options.expert_parallel = 1;
    smallest.options.expert_tensor = slices;
    LayoutRun exact;
    exact.options.expert_parallel = exact.options.expert_tensor = 1;
    exact.options.dtype = DType::f64;
    const Outcome single = run_layout(run, smallest, options.steps);
    const Outcome reference = dtype == DType::f64 && slices == 1 ? single : run_layout(run, exact, 1);

    LayoutTolerances tolerances = layout_tolerances(dtype);
    if (dtype == DType::f32 && run.config.cpu.gemm == "onednn") {  // other types' products stay ours
        tolerances.same_bits = false;
        tolerances.layout = tolerances.exact;
    }
    tolerances.elastic = run.config.train.determinism == "elastic";
    std::vector<LayoutResult> results;
    for (const int world : options.worlds) {
        for (const int expert_parallel : expert_parallel_sizes(world, slices)) {
            if (!why_left_out(run, world, expert_parallel).empty()) continue;
            LayoutRun layout = smallest;
            layout.world = world;
            layout.options.expert_parallel = expert_parallel;
            if (world > 1) layout.options.defects = options.defects;
            const Outcome mine = world == 1 ? single : run_layout(run, layout, options.steps);
            results.push_back(compare(layout, mine, single, reference, tolerances));
        }
    }
    return results;
}

}  // namespace moesaic
