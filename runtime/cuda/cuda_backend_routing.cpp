#include <algorithm>

#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/key_groups.h"
#include "runtime/cuda/kernels/routing.h"
#include "runtime/cuda/kernels/rows.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

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

}  // namespace moesaic
