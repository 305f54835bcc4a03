#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/router.h"
#include "runtime/cuda/kernels/routing.h"
#include "runtime/cuda/kernels/rows.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

void CudaBackend::top_k(Stream& stream, const TopK& op) {
    const Launcher on = checked(stream, &Backend::top_k, op);
    MOESAIC_ASSERT(op.groups <= kernels::kMostGroups, "{} groups of experts", op.groups);
    with_real(op.scores.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(op.scores.rows(),
                    kernels::TopKRow<T>{.scores = in<T>(op.scores),
                                        .bias = in_or_null<T>(op.bias),
                                        .index = out<i32>(op.index),
                                        .value = out<T>(op.value),
                                        .columns = op.scores.cols(),
                                        .choices = op.index.cols(),
                                        .groups = op.groups,
                                        .top_groups = op.top_groups,
                                        .two_best = op.group_score == GroupScore::top2_sum});
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
    const i64 keys = op.key.elements(), groups = op.counts.elements();
    const i64 chunks = (keys + kernels::kKeysPerChunk - 1) / kernels::kKeysPerChunk;
    Tensor begin = allocate({chunks, groups}, DType::int32);
    on.each(chunks * groups, kernels::KeyCountElement{in<i32>(op.key), keys, groups, begin.as<i32>()});
    on.each(groups, kernels::KeyBeginElement{begin.as<i32>(), chunks, groups, out<i64>(op.counts)});
    on.each(chunks * groups, kernels::KeyPlaceElement{in<i32>(op.key), begin.as<i32>(), in<i64>(op.counts),
                                                      keys, groups, out<i32>(op.order)});
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

void CudaBackend::router_sums(Stream& stream, const RouterSums& op) {
    const Launcher on = checked(stream, &Backend::router_sums, op);
    const i64 tokens = op.index.rows(), size = op.rows_per_object;
    const kernels::Counted counted = op.counted == CountedChoices::all     ? kernels::Counted::all
                                     : op.counted == CountedChoices::first ? kernels::Counted::first
                                                                           : kernels::Counted::most_probable;
    with_real(op.weight.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.counts.elements(),
                kernels::RouterSumElement<T>{.probability = in_or_null<T>(op.probability),
                                             .load_probability = in_or_null<T>(op.load_probability),
                                             .weight = in<T>(op.weight),
                                             .index = in<i32>(op.index),
                                             .tokens = tokens,
                                             .experts = op.counts.cols(),
                                             .choices = op.index.cols(),
                                             .rows_per_object = size,
                                             .counted = counted,
                                             .counts = out<i64>(op.counts),
                                             .balance_counts = out<i64>(op.balance_counts),
                                             .probability_sum = out<double>(op.probability_sum),
                                             .weight_sum = out<double>(op.weight_sum),
                                             .load_sum = out<double>(op.load_sum)});
        on.each(op.z_sum.elements(), kernels::RouterZSumElement<T>{in_or_null<T>(op.log_sum_exp), tokens,
                                                                   size, out<double>(op.z_sum)});
    });
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
        on.each_row(op.entropy_sum.elements(),
                    kernels::ConfidenceRow<T>{in<T>(op.probability), in<T>(op.weight), op.probability.rows(),
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
    with_real(op.priority.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.index.elements(),
                kernels::LimitElement<T>{in<i32>(op.index), in_or_null<T>(op.priority), op.index.rows(),
                                         op.priority.cols(), op.index.cols(), op.rows_per_object, op.capacity,
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
