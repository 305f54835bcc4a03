#include <algorithm>
#include <bit>
#include <type_traits>

#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/capacity.h"
#include "runtime/cuda/kernels/choices.h"
#include "runtime/cuda/kernels/route.h"
#include "runtime/cuda/kernels/router.h"
#include "runtime/cuda/kernels/router_sums.h"
#include "runtime/cuda/launching.h"
#include "runtime/route_in_turn.h"

namespace moesaic {

using namespace cuda;

namespace {

/// Calls `launch` with the tag of the least number of registers that hold a lane's columns; 0 where there are
/// too many.
template <class Launch>
void with_columns(i64 columns, Launch&& launch) {
    if (columns <= 32) return launch(std::integral_constant<int, 1>{});
    if (columns <= 64) return launch(std::integral_constant<int, 2>{});
    if (columns <= 128) return launch(std::integral_constant<int, 4>{});
    if (columns <= 256) return launch(std::integral_constant<int, 8>{});
    launch(std::integral_constant<int, 0>{});
}

}  // namespace

void CudaBackend::row_softmax(Stream& stream, const RowSoftmax& op) {
    const Launcher on = checked(stream, &Backend::row_softmax, op);
    with_real(op.logits.dtype, [&]<class T>(TypeTag<T>) {
        with_columns(op.logits.cols(), [&]<int per_lane>(std::integral_constant<int, per_lane>) {
            on.each_row(op.logits.rows(),
                        kernels::SoftmaxRow<T, per_lane>{in<T>(op.logits), out<T>(op.probability),
                                                         out<T>(op.log_sum_exp), op.logits.cols()});
        });
    });
}

void CudaBackend::top_k(Stream& stream, const TopK& op) {
    const Launcher on = checked(stream, &Backend::top_k, op);
    MOESAIC_ASSERT(op.groups <= kernels::kMostGroups, "{} groups of experts", op.groups);
    with_real(op.scores.dtype, [&]<class T>(TypeTag<T>) {
        with_columns(op.scores.cols(), [&]<int per_lane>(std::integral_constant<int, per_lane>) {
            on.each_row(op.scores.rows(),
                        kernels::TopKRow<T, per_lane>{.scores = in<T>(op.scores),
                                                      .bias = in_or_null<T>(op.bias),
                                                      .index = out<i32>(op.index),
                                                      .value = out<T>(op.value),
                                                      .columns = op.scores.cols(),
                                                      .choices = op.index.cols(),
                                                      .groups = op.groups,
                                                      .top_groups = op.top_groups,
                                                      .two_best = op.group_score == GroupScore::top2_sum});
        });
    });
}

namespace {

kernels::Counted counted_of(CountedChoices counted) {
    switch (counted) {
        case CountedChoices::first:
            return kernels::Counted::first;
        case CountedChoices::most_probable:
            return kernels::Counted::most_probable;
        default:
            return kernels::Counted::all;
    }
}

/// Sums of chunks, in the back end's memory.
struct SumParts {
    Tensor of_experts, of_z;
};

template <class T>
kernels::RouterSumChunk<T> chunks_of(Backend& backend, const RouterSums& op, SumParts& parts) {
    const i64 tokens = op.index.rows(), experts = op.counts.cols(), objects = op.counts.rows();
    const i64 chunks = quotient_up(std::min(op.rows_per_object, tokens), kernels::kTokensPerSum);
    parts.of_experts = backend.allocate({kernels::kExpertSums, objects * chunks, experts}, DType::f64);
    parts.of_z = backend.allocate({objects * chunks}, DType::f64);
    const i64 at_once = std::min<i64>(experts, kernels::kBlockThreads);
    return {.probability = in_or_null<T>(op.probability),
            .log_sum_exp = in_or_null<T>(op.log_sum_exp),
            .load_probability = in_or_null<T>(op.load_probability),
            .weight = in<T>(op.weight),
            .index = in<i32>(op.index),
            .tokens = tokens,
            .choices = op.index.cols(),
            .rows_per_object = op.rows_per_object,
            .objects = objects,
            .chunks = chunks,
            .tiles = quotient_up(experts, kernels::kBlockThreads),
            .experts = static_cast<int>(experts),
            .experts_at_once = static_cast<int>(std::bit_ceil(static_cast<u64>(at_once))),
            .counted = counted_of(op.counted),
            .part = parts.of_experts.as<double>(),
            .z_part = parts.of_z.as<double>()};
}

void add_up_chunks(const Launcher& on, const RouterSums& op, i64 chunks, const SumParts& parts) {
    const i64 objects = op.counts.rows(), experts = op.counts.cols();
    const i64 tiles = quotient_up(experts, kernels::kColumnsOfBlock);
    on.each_block(objects * kernels::kRouterSums * tiles,
                  kernels::RouterSumTotal{.part = parts.of_experts.as<double>(),
                                          .z_part = parts.of_z.as<double>(),
                                          .objects = objects,
                                          .chunks = chunks,
                                          .experts = experts,
                                          .tiles = tiles,
                                          .counts = out<i64>(op.counts),
                                          .balance_counts = out<i64>(op.balance_counts),
                                          .probability_sum = out<double>(op.probability_sum),
                                          .weight_sum = out<double>(op.weight_sum),
                                          .load_sum = out<double>(op.load_sum),
                                          .z_sum = out<double>(op.z_sum)});
}

}  // namespace

void CudaBackend::router_sums(Stream& stream, const RouterSums& op) {
    const Launcher on = checked(stream, &Backend::router_sums, op);
    with_real(op.weight.dtype, [&]<class T>(TypeTag<T>) {
        SumParts parts;
        const kernels::RouterSumChunk<T> sums = chunks_of<T>(*this, op, parts);
        on.each_block(sums.objects * sums.chunks * sums.tiles, sums);
        add_up_chunks(on, op, sums.chunks, parts);
    });
}

void CudaBackend::route(Stream& stream, const Route& op) {
    const i64 experts = op.logits.cols(), choices = op.index.cols();
    if (op.logits.dtype != DType::f32 || experts > kernels::kMostRoutedExperts ||
        choices > kernels::kMostRoutedChoices)
        return route_in_turn(*this, stream, op);
    if (op.sigmoid) {
        checked(stream, &Backend::sigmoid_scores, sigmoid_scores_of(op));
    } else {
        checked(stream, &Backend::row_softmax, softmax_of(op));
    }
    checked(stream, &Backend::top_k, top_k_of(op));
    const RouterSums sums = sums_of(op);
    const Launcher on = checked(stream, &Backend::router_sums, sums);
    SumParts parts;
    const kernels::RouterSumChunk<float> chunks = chunks_of<float>(*this, sums, parts);
    with_columns(experts, [&]<int per_lane>(std::integral_constant<int, per_lane>) {
        if constexpr (per_lane > 0) {
            on.each_block(
                chunks.objects * chunks.chunks,
                kernels::RouteChunk<float, per_lane>{.logits = in<float>(op.logits),
                                                     .bias = in_or_null<float>(op.bias),
                                                     .score = op.sigmoid ? out<float>(op.score) : nullptr,
                                                     .probability = out<float>(op.probability),
                                                     .log_sum_exp = out<float>(op.log_sum_exp),
                                                     .index = out<i32>(op.index),
                                                     .weight = out<float>(op.weight),
                                                     .columns = static_cast<int>(experts),
                                                     .choices = static_cast<int>(choices),
                                                     .groups = static_cast<int>(op.groups),
                                                     .top_groups = static_cast<int>(op.top_groups),
                                                     .two_best = op.group_score == GroupScore::top2_sum,
                                                     .by_logits = chooses_by_logits(op),
                                                     .over_choices = op.over_choices,
                                                     .weight_scale = static_cast<float>(op.weight_scale),
                                                     .sums = chunks});
        }
    });
    add_up_chunks(on, sums, chunks.chunks, parts);
}

void CudaBackend::router_backward(Stream& stream, const RouterGrad& op) {
    const Launcher on = checked(stream, &Backend::router_backward, op);
    const i64 rows = op.probability.rows(), experts = op.probability.cols();
    with_real(op.probability.dtype, [&]<class T>(TypeTag<T>) {
        with_columns(experts, [&]<int per_lane>(std::integral_constant<int, per_lane>) {
            constexpr int kMost = sizeof(T) == 4 ? 8 : 2;
            constexpr int kPerLane = per_lane > 0 && per_lane < kMost ? per_lane : kMost;
            on.each_block(quotient_up(rows, kernels::kBlockThreads / 32),
                          kernels::RouterGradRows<T, kPerLane>{
                              .probability = in<T>(op.probability),
                              .log_sum_exp = in<T>(op.log_sum_exp),
                              .sigmoid_logits = in_or_null<T>(op.sigmoid_logits),
                              .weight = in<T>(op.weight),
                              .d_weight = in<T>(op.d_weight),
                              .index = in<i32>(op.index),
                              .balance_factor = in_or_null<double>(op.balance_factor),
                              .one_factor = op.balance_factor.rows() == 1,
                              .experts = static_cast<int>(experts),
                              .choices = static_cast<int>(op.index.cols()),
                              .rows = rows,
                              .rows_per_object = op.rows_per_object,
                              .over_choices = op.over_choices,
                              .weight_scale = static_cast<T>(op.weight_scale),
                              .inverse_weight_scale = static_cast<T>(1 / op.weight_scale),
                              .z_scale = op.z_scale,
                              .d_logits = out<T>(op.d_logits)});
        });
    });
}

void CudaBackend::router_confidence(Stream& stream, const RouterConfidence& op) {
    const Launcher on = checked(stream, &Backend::router_confidence, op);
    with_real(op.probability.dtype, [&]<class T>(TypeTag<T>) {
        on.each_block(
            op.entropy_sum.elements(),
            kernels::ConfidencePart<T>{in<T>(op.probability), in<T>(op.weight), op.probability.rows(),
                                       op.probability.cols(), op.weight.cols(), op.rows_per_part,
                                       out<double>(op.entropy_sum), out<double>(op.first_weight_sum)});
    });
}

void CudaBackend::add_by_choice(Stream& stream, const AddByChoice& op) {
    const Launcher on = checked(stream, &Backend::add_by_choice, op);
    with_real(op.d_weight.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.index.elements(),
                kernels::AddByChoiceElement<T>{in<double>(op.factor), op.factor.rows() == 1,
                                               in<i32>(op.index), op.factor.cols(), op.index.cols(),
                                               op.rows_per_object, out<T>(op.d_weight)});
    });
}

void CudaBackend::limit_choices(Stream& stream, const LimitChoices& op) {
    const Launcher on = checked(stream, &Backend::limit_choices, op);
    const i64 count = op.index.elements(), choices = op.index.cols();
    const i64 experts = op.experts, keys = quotient_up(op.index.rows(), op.rows_per_object) * experts;
    const bool by_priority = op.priority.elements() > 0;
    Tensor key = allocate({count}, DType::int32), order = allocate({count}, DType::int32);
    Tensor first_place = allocate({keys}, DType::int32), rivals = allocate({keys}, DType::int64);
    on.each(count, kernels::RivalKeyElement{in<i32>(op.index), experts, choices, op.rows_per_object,
                                            key.as<i32>(), order.as<i32>(), out<i32>(op.kept)});
    sort_by_key(on, key, keys, order.as<i32>(), rivals.as<i64>(), first_place.as<i32>());
    with_real(op.priority.dtype, [&]<class T>(TypeTag<T>) {
        Tensor sorted = by_priority ? allocate({count}, op.priority.dtype) : Tensor();
        T* const priority = by_priority ? sorted.as<T>() : nullptr;
        if (by_priority) {
            on.each(count, kernels::RivalPriorityElement<T>{in<T>(op.priority), in<i32>(op.index),
                                                            order.as<i32>(), experts, choices, priority});
        }
        on.each(count,
                kernels::LimitElement<T>{priority, key.as<i32>(), order.as<i32>(), first_place.as<i32>(),
                                         rivals.as<i64>(), op.capacity, out<i32>(op.kept)});
    });
}

void CudaBackend::rescale_kept(Stream& stream, const RescaleKept& op) {
    const Launcher on = checked(stream, &Backend::rescale_kept, op);
    with_real(op.weight.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.index.elements(),
                kernels::RescaleElement<T>{in<T>(op.weight), in<i32>(op.index), in<i32>(op.kept),
                                           out<T>(op.out), op.index.cols()});
    });
}

void CudaBackend::rescale_kept_backward(Stream& stream, const RescaleKeptGrad& op) {
    const Launcher on = checked(stream, &Backend::rescale_kept_backward, op);
    with_real(op.weight.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.index.rows(),
                kernels::RescaleGradRow<T>{in<T>(op.weight), in<T>(op.d_out), in<i32>(op.index),
                                           in<i32>(op.kept), out<T>(op.d_weight), op.index.cols()});
    });
}

}  // namespace moesaic
