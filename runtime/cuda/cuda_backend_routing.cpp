#include <algorithm>
#include <bit>
#include <type_traits>

#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/capacity.h"
#include "runtime/cuda/kernels/choices.h"
#include "runtime/cuda/kernels/key_groups.h"
#include "runtime/cuda/kernels/router.h"
#include "runtime/cuda/kernels/router_sums.h"
#include "runtime/cuda/kernels/routing.h"
#include "runtime/cuda/kernels/rows.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

namespace {

constexpr i64 quotient_up(i64 a, i64 b) {
    return (a + b - 1) / b;
}

}  // namespace

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

void CudaBackend::gather_choices(Stream& stream, const GatherChoices& op) {
    const Launcher on = checked(stream, &Backend::gather_choices, op);
    with_real(op.scores.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.index.elements(),
                kernels::ChoiceElement<T>{in<T>(op.scores), in<i32>(op.index), out<T>(op.value),
                                          op.scores.cols(), op.index.cols()});
    });
}

void CudaBackend::normalize_rows(Stream& stream, const NormalizeRows& op) {
    const Launcher on = checked(stream, &Backend::normalize_rows, op);
    with_real(op.x.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.x.rows(), kernels::NormalizedRow<T>{out<T>(op.x), static_cast<T>(op.scale), op.x.cols()});
    });
}

void CudaBackend::group_by_key(Stream& stream, const GroupByKey& op) {
    const Launcher on = checked(stream, &Backend::group_by_key, op);
    sort_by_key(on, op.key, op.counts.elements(), out<i32>(op.order), out<i64>(op.counts), nullptr);
}

void CudaBackend::sort_by_key(const Launcher& on, ConstTensorView key, i64 groups, i32* order, i64* counts,
                              i32* first_place) {
    // Every chunk reads the counts of all, so that they are not to be many.
    constexpr i64 kLeastKeys = 1024, kMostChunks = 64;
    const i64 keys = key.elements(), about = std::max(kLeastKeys, quotient_up(keys, kMostChunks));
    kernels::KeyChunks chunks{
        .key = in<i32>(key),
        .keys = keys,
        .keys_per_chunk = quotient_up(about, kernels::kBlockThreads) * kernels::kBlockThreads,
        .chunks = 1,
        .groups = groups,
        .tiles = quotient_up(groups, kernels::kBlockThreads),
        .counts_of_chunk = nullptr};
    chunks.chunks = std::max<i64>(quotient_up(keys, chunks.keys_per_chunk), 1);
    Tensor counts_of_chunk = allocate({chunks.chunks, groups}, DType::int32);
    chunks.counts_of_chunk = counts_of_chunk.as<i32>();
    on.each_block(chunks.chunks * chunks.tiles, kernels::KeyCountChunk{chunks});
    on.each_block(chunks.chunks * chunks.tiles, kernels::KeyPlaceChunk{chunks, order, counts, first_place});
}

void CudaBackend::combine_rows(Stream& stream, const CombineRows& op) {
    const Launcher on = checked(stream, &Backend::combine_rows, op);
    const i64 width = op.y.cols();
    with_stored(op.y.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(are_whole_quads(width, in<T>(op.rows), in<T>(op.y)), [&](auto whole) {
            on.each_tile(op.y.rows(), quads_of(width),
                         kernels::CombineTile<T, whole>{
                             in<T>(op.rows), in<i32>(op.slot), in_or_null<Real<T>>(op.weight), out<T>(op.y),
                             static_cast<i32>(op.slot.cols()), width, op.accumulate});
        });
    });
}

void CudaBackend::combine_rows_backward(Stream& stream, const CombineRowsGrad& op) {
    const Launcher on = checked(stream, &Backend::combine_rows_backward, op);
    const i64 width = op.dy.cols();
    with_stored(op.dy.dtype, [&]<class T>(TypeTag<T>) {
        const T* const rows = in_or_null<T>(op.rows);
        with_quads<T>(are_whole_quads(width, rows, in<T>(op.dy), in<T>(op.d_rows)), [&](auto whole) {
            on.each_row_of(op.slot.elements(), width,
                           kernels::CombineGradRow<T, whole>{
                               rows, in<T>(op.dy), in<i32>(op.slot), in_or_null<Real<T>>(op.weight),
                               out<T>(op.d_rows), out_or_null<Real<T>>(op.d_weight), op.slot.cols(), width});
        });
    });
}

void CudaBackend::sigmoid_gate(Stream& stream, const SigmoidGate& op) {
    const Launcher on = checked(stream, &Backend::sigmoid_gate, op);
    const i64 width = op.y.cols();
    with_stored(op.y.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(are_whole_quads(width, in<T>(op.rows), in<T>(op.y)), [&](auto whole) {
            on.each_row_of(
                op.y.rows(), width,
                kernels::GateRow<T, whole>{in<Real<T>>(op.logit), in<T>(op.rows), out<T>(op.y), width});
        });
    });
}

void CudaBackend::sigmoid_gate_backward(Stream& stream, const SigmoidGateGrad& op) {
    const Launcher on = checked(stream, &Backend::sigmoid_gate_backward, op);
    const i64 width = op.dy.cols();
    with_stored(op.dy.dtype, [&]<class T>(TypeTag<T>) {
        const T *const rows = in<T>(op.rows), *const dy = in<T>(op.dy);
        with_quads<T>(are_whole_quads(width, rows, dy, in<T>(op.d_rows)), [&](auto whole) {
            on.each_row_of(op.dy.rows(), width,
                           kernels::GateGradRow<T, whole>{in<Real<T>>(op.logit), rows, dy, out<T>(op.d_rows),
                                                          out<Real<T>>(op.d_logit), width});
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

}  // namespace

void CudaBackend::router_sums(Stream& stream, const RouterSums& op) {
    const Launcher on = checked(stream, &Backend::router_sums, op);
    const i64 tokens = op.index.rows(), experts = op.counts.cols(), objects = op.counts.rows();
    const i64 chunks = quotient_up(std::min(op.rows_per_object, tokens), kernels::kTokensPerSum);
    const i64 tiles = quotient_up(experts, kernels::kBlockThreads);
    Tensor part = allocate({kernels::kExpertSums, objects * chunks, experts}, DType::f64);
    Tensor z_part = allocate({objects * chunks}, DType::f64);
    with_real(op.weight.dtype, [&]<class T>(TypeTag<T>) {
        on.each_block(
            objects * chunks * tiles,
            kernels::RouterSumChunk<T>{.probability = in_or_null<T>(op.probability),
                                       .log_sum_exp = in_or_null<T>(op.log_sum_exp),
                                       .load_probability = in_or_null<T>(op.load_probability),
                                       .weight = in<T>(op.weight),
                                       .index = in<i32>(op.index),
                                       .tokens = tokens,
                                       .choices = op.index.cols(),
                                       .rows_per_object = op.rows_per_object,
                                       .objects = objects,
                                       .chunks = chunks,
                                       .tiles = tiles,
                                       .experts = static_cast<int>(experts),
                                       .experts_at_once = static_cast<int>(std::bit_ceil(
                                           static_cast<u64>(std::min<i64>(experts, kernels::kBlockThreads)))),
                                       .counted = counted_of(op.counted),
                                       .part = part.as<double>(),
                                       .z_part = z_part.as<double>()});
    });
    const i64 total_tiles = quotient_up(experts, kernels::kColumnsOfBlock);
    on.each_block(objects * kernels::kRouterSums * total_tiles,
                  kernels::RouterSumTotal{.part = part.as<double>(),
                                          .z_part = z_part.as<double>(),
                                          .objects = objects,
                                          .chunks = chunks,
                                          .experts = experts,
                                          .tiles = total_tiles,
                                          .counts = out<i64>(op.counts),
                                          .balance_counts = out<i64>(op.balance_counts),
                                          .probability_sum = out<double>(op.probability_sum),
                                          .weight_sum = out<double>(op.weight_sum),
                                          .load_sum = out<double>(op.load_sum),
                                          .z_sum = out<double>(op.z_sum)});
}

void CudaBackend::router_backward(Stream& stream, const RouterGrad& op) {
    const Launcher on = checked(stream, &Backend::router_backward, op);
    with_real(op.probability.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(op.probability.rows(),
                    kernels::RouterGradRow<T>{.probability = in<T>(op.probability),
                                              .log_sum_exp = in<T>(op.log_sum_exp),
                                              .sigmoid_logits = in_or_null<T>(op.sigmoid_logits),
                                              .weight = in<T>(op.weight),
                                              .d_weight = in<T>(op.d_weight),
                                              .index = in<i32>(op.index),
                                              .balance_factor = in_or_null<double>(op.balance_factor),
                                              .one_factor = op.balance_factor.rows() == 1,
                                              .experts = op.probability.cols(),
                                              .choices = op.index.cols(),
                                              .rows_per_object = op.rows_per_object,
                                              .over_choices = op.over_choices,
                                              .weight_scale = static_cast<T>(op.weight_scale),
                                              .inverse_weight_scale = static_cast<T>(1 / op.weight_scale),
                                              .z_scale = op.z_scale,
                                              .d_logits = out<T>(op.d_logits)});
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
    if (op.priority.elements() == 0) {
        on.each(count, kernels::FirstComeElement{in<i32>(op.index), op.rows_per_object * choices, op.capacity,
                                                 out<i32>(op.kept)});
        return;
    }
    const i64 experts = op.priority.cols(), keys = quotient_up(op.index.rows(), op.rows_per_object) * experts;
    Tensor key = allocate({count}, DType::int32), order = allocate({count}, DType::int32);
    Tensor first_place = allocate({keys}, DType::int32), rivals = allocate({keys}, DType::int64);
    Tensor sorted = allocate({count}, op.priority.dtype);
    on.each(count, kernels::RivalKeyElement{in<i32>(op.index), experts, choices, op.rows_per_object,
                                            key.as<i32>(), order.as<i32>(), out<i32>(op.kept)});
    sort_by_key(on, key, keys, order.as<i32>(), rivals.as<i64>(), first_place.as<i32>());
    with_real(op.priority.dtype, [&]<class T>(TypeTag<T>) {
        on.each(count, kernels::RivalPriorityElement<T>{in<T>(op.priority), in<i32>(op.index),
                                                        order.as<i32>(), experts, choices, sorted.as<T>()});
        on.each(count, kernels::LimitElement<T>{sorted.as<T>(), key.as<i32>(), order.as<i32>(),
                                                first_place.as<i32>(), rivals.as<i64>(), op.capacity,
                                                out<i32>(op.kept)});
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
