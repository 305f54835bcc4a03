#include "launch/nonfinite_search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

constexpr auto kBeyondLimit =
    "; a micro-batch's was finite, but beyond {:.4g}, the most that train.determinism: elastic sums exactly; "
    "train.determinism: layout has no such limit, a smaller optimizer.lr or a longer warm-up keeps away from "
    "it where training diverges";

/// Whatever device it is on; only called once something is wrong.
std::vector<double> to_host(StepContext& context, ConstTensorView view) {
    const auto fetch = [&]<class T>(T) {
        std::vector<T> values(static_cast<std::size_t>(view.elements()));
        if (!values.empty()) context.backend.copy(context.compute, view, view_of(values.data(), view.shape));
        context.compute.synchronize();
        return values;
    };
    if (view.dtype == DType::f64) return fetch(double{});
    if (view.dtype == DType::f32) {
        const std::vector<float> values = fetch(float{});
        return {values.begin(), values.end()};
    }
    std::vector<double> widened_values;
    for (const BFloat16 value : fetch(BFloat16{})) widened_values.push_back(widened(value));
    return widened_values;
}

bool is_finite(double value) {
    return std::isfinite(value);
}

bool all_finite(StepContext& context, ConstTensorView view) {
    return view.elements() == 0 || std::ranges::all_of(to_host(context, view), is_finite);
}

std::vector<i64> bad_rows(StepContext& context, ConstTensorView view) {
    const std::vector<double> values = to_host(context, view);
    std::vector<i64> rows;
    const i64 width = view.cols();
    for (i64 row = 0; row < view.rows(); ++row) {
        const auto first = values.begin() + row * width;
        if (!std::all_of(first, first + width, is_finite)) rows.push_back(row);
    }
    return rows;
}

/// The only expert that all of these tokens have visited, where there is just one.
i64 common_expert(StepContext& context, const Routing& routing, const std::vector<i64>& tokens) {
    const ConstTensorView chosen = routing.expert;
    const i64 choices = chosen.cols();
    std::vector<i32> experts(static_cast<std::size_t>(chosen.elements()));
    if (experts.empty() || tokens.empty()) return -1;
    context.backend.copy(context.compute, chosen, view_of(experts.data(), chosen.shape));
    context.compute.synchronize();
    const auto of_token = [&](i64 token) {
        return std::span(experts).subspan(static_cast<std::size_t>(token * choices),
                                          static_cast<std::size_t>(choices));
    };
    std::vector<i32> common;
    for (const i32 expert : of_token(tokens.front())) {
        const bool everywhere = std::ranges::all_of(tokens, [&](i64 token) {
            const auto visited = of_token(token);
            return std::ranges::find(visited, expert) != visited.end();
        });
        if (expert >= 0 && everywhere) common.push_back(expert);
    }
    return common.size() == 1 ? common.front() : -1;
}

}  // namespace

void NonfiniteSearch::set_what(Finding& finding, const std::string& what) {
    const std::size_t length = std::min(what.size(), finding.what.size() - 1);
    std::memcpy(finding.what.data(), what.data(), length);
}

NonfiniteSearch::Finding NonfiniteSearch::finding_of(NonfiniteStage stage, i64 order,
                                                     const Parameter& parameter) {
    Finding finding;
    finding.stage = static_cast<i64>(stage);
    finding.order = order;
    finding.layer = parameter.layer;
    finding.expert = parameter.expert;
    set_what(finding, parameter.name);
    return finding;
}

void NonfiniteSearch::look_at_forward(StepContext& context, const ModelSpec& spec, const ModelSaved& saved,
                                      std::span<const double> losses, i64 micro_step) {
    if (forward_ || std::ranges::all_of(losses, is_finite)) return;
    Finding& found = forward_.emplace(Finding{});
    found.stage = static_cast<i64>(NonfiniteStage::forward);
    // A later micro-step's first layer still comes after an earlier one's last.
    found.order = micro_step * (spec.layers + 2);
    if (!saved.inputs.empty() && !all_finite(context, saved.inputs.front()))
        return set_what(found, "the embedding or the inputs");
    for (std::size_t layer = 0; layer + 1 < saved.inputs.size(); ++layer) {
        const std::vector<i64> bad = bad_rows(context, saved.inputs[layer + 1]);
        if (bad.empty()) continue;
        found.layer = static_cast<i64>(layer);
        found.order += found.layer + 1;
        const Block::Saved& block = saved.blocks[layer];
        if (block.middle && !all_finite(context, block.middle)) return set_what(found, "attention");
        const bool experts = spec.has_experts(static_cast<int>(layer));
        if (experts) found.expert = common_expert(context, block.experts.followed(), bad);
        return set_what(found, experts ? "experts" : "feed-forward");
    }
    found.order += spec.layers + 1;
    set_what(found, spec.kind == ModelKind::momlp ? "the cells or the head" : "the head");
}

std::optional<NonfiniteSearch::Finding> NonfiniteSearch::in_weights(StepContext& context,
                                                                    const ParameterStore& store) {
    i64 index = 0;
    for (const Parameter& parameter : store.parameters()) {
        if (!all_finite(context, parameter.value))
            return finding_of(NonfiniteStage::weights, index, parameter);
        ++index;
    }
    return {};
}

/// Before ranks' sums are added up every rank has its own; afterwards those of the part that it owns are the
/// whole world's.
void NonfiniteSearch::look_at_gradients(StepContext& context, ParameterStore& store,
                                        const GradientBucket& bucket, Finding& certain, Finding& uncertain) {
    const bool alone = GradientSync::group_of(context, bucket.placement).size() == 1;
    const auto look = [&](TensorView arena, ArenaRange range, Finding& best) {
        for (const TensorPiece& piece : pieces_in(store, bucket.placement, range)) {
            const auto order = -static_cast<i64>(piece.parameter);
            if (best.stage != static_cast<i64>(NonfiniteStage::none) && best.order <= order) continue;
            const std::vector<double> values =
                to_host(context, arena.flat(piece.range.begin, piece.range.size()));
            if (std::ranges::all_of(values, is_finite)) continue;
            best = finding_of(NonfiniteStage::gradient, order,
                              std::as_const(store).parameters()[piece.parameter]);
            best.infinite = std::ranges::none_of(values, [](double value) { return std::isnan(value); });
        }
    };
    look(store.sums(bucket.placement), {bucket.range.begin, bucket.owned.begin}, certain);
    look(store.sums(bucket.placement), {bucket.owned.end, bucket.range.end}, certain);
    look(store.gradients(bucket.placement), bucket.owned, alone ? certain : uncertain);
}

NonfiniteOrigin NonfiniteSearch::find(StepContext& context, ParameterStore& store, const GradientSync& sync,
                                      std::optional<double> limit) const {
    std::array<Finding, 3> mine;
    mine[0] = in_weights(context, store).value_or(forward_.value_or(Finding{}));
    for (const GradientBucket& bucket : sync.buckets())
        look_at_gradients(context, store, bucket, mine[1], mine[2]);
    mine[2].uncertain = 1;
    constexpr i64 kNumbers = sizeof mine / sizeof(i64);
    static_assert(sizeof mine % sizeof(i64) == 0);
    Communicator& world = context.mesh.world();
    std::vector<std::array<Finding, 3>> all(static_cast<std::size_t>(world.size()));
    world.all_gather(context.exchange, view_of(&mine[0].stage, {kNumbers}),
                     view_of(&all[0][0].stage, {kNumbers * world.size()}), {"numbers that are not finite"});
    context.exchange.synchronize();
    NonfiniteOrigin origin;
    Finding first;
    const auto key = [](const Finding& one) { return std::tuple(one.stage, one.order, one.uncertain); };
    for (int rank = 0; rank < world.size(); ++rank) {
        for (const Finding& one : all[static_cast<std::size_t>(rank)]) {
            if (origin.rank >= 0 && key(one) >= key(first)) continue;
            first = one;
            origin.rank = rank;
        }
    }
    origin.stage = static_cast<NonfiniteStage>(first.stage);
    if (origin.stage == NonfiniteStage::none) origin.rank = -1;
    if (first.layer >= 0) origin.layer = first.layer;
    if (first.expert >= 0) origin.expert = first.expert;
    origin.what = first.what.data();
    // Folding leaves an infinity of nothing but numbers beyond its limit.
    if (origin.stage == NonfiniteStage::gradient && first.infinite != 0) origin.limit = limit;
    return origin;
}

std::string NonfiniteOrigin::text() const {
    if (stage == NonfiniteStage::none) return "weights, activations and gradients are all finite now";
    std::string place = layer ? fmt::format("layer {}", *layer) : "";
    if (expert) place += fmt::format(", expert {}", *expert);
    switch (stage) {
        case NonfiniteStage::weights:
            return fmt::format("the weights themselves are not finite: {}{}, on rank {}", what,
                               place.empty() ? "" : " (" + place + ")", rank);
        case NonfiniteStage::forward:
            return fmt::format("first in the forward of {}{}, on rank {}", place.empty() ? "" : place + ": ",
                               what, rank);
        default:
            return fmt::format("first in the gradient of {}{}, on rank {}{}", what,
                               place.empty() ? "" : " (" + place + ")", rank,
                               limit ? fmt::format(kBeyondLimit, *limit) : "");
    }
}

}  // namespace moesaic
