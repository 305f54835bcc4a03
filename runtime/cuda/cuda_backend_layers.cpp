#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/activation.h"
#include "runtime/cuda/kernels/layers.h"
#include "runtime/cuda/kernels/loss.h"
#include "runtime/cuda/kernels/rows.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;
using kernels::Function;

void CudaBackend::rms_norm(Stream& stream, const RmsNorm& op) {
    const Launcher on = checked(stream, &Backend::rms_norm, op);
    const i64 n = op.weight.elements();
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(are_whole_quads(n, in<T>(op.x), in<T>(op.weight), in<T>(op.y)), [&](auto whole) {
            on.each_row_of(
                op.inverse_rms.elements(), n,
                kernels::NormRow<T, whole>{in<T>(op.x), in<T>(op.weight), out<T>(op.y),
                                           out<Real<T>>(op.inverse_rms), static_cast<i32>(n), op.eps});
        });
    });
}

void CudaBackend::rms_norm_backward(Stream& stream, const RmsNormGrad& op) {
    const Launcher on = checked(stream, &Backend::rms_norm_backward, op);
    const i64 n = op.weight.elements(), rows = op.inverse_rms.elements();
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        const Real<T>* const inverse = in<Real<T>>(op.inverse_rms);
        const T *const x = in<T>(op.x), *const dy = in<T>(op.dy);
        with_quads<T>(are_whole_quads(n, x, in<T>(op.weight), dy, in<T>(op.dx)), [&](auto whole) {
            using Chunk = kernels::NormWeightGradChunk<T, whole>;
            const i64 chunks = quotient_up(rows, Chunk::kRowsOfChunk);
            const i64 panels = quotient_up(n, Chunk::kColumns);
            // The weight first: dx may be the memory of dy.
            Tensor room = allocate({chunks, n}, op.d_weight.dtype);
            Real<T>* const parts = out<Real<T>>(room.view());
            on.each_team(chunks * panels,
                         Chunk{x, dy, inverse, parts, rows, static_cast<i32>(n), static_cast<i32>(panels)});
            on.each(n, kernels::ChunkSumElement<Real<T>>{parts, out<Real<T>>(op.d_weight), chunks, n});
            on.each_row_of(rows, n,
                           kernels::NormGradRow<T, whole>{x, in<T>(op.weight), dy, inverse, out<T>(op.dx),
                                                          static_cast<i32>(n), op.accumulate_dx});
        });
    });
}

void CudaBackend::rope(Stream& stream, const Rope& op) {
    const Launcher on = checked(stream, &Backend::rope, op);
    const i64 half = op.head_dim / 2;
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        const Real<T>*const cosine = in<Real<T>>(op.cosine), *const sine = in<Real<T>>(op.sine);
        const bool are_whole =
            are_whole_quads(half, in<T>(op.x), cosine, sine) && op.row_stride % kernels::kQuad == 0;
        with_quads<T>(are_whole, [&](auto whole) {
            on.each_tile(op.x.rows(), op.heads * quads_of(half),
                         kernels::RopeTile<T, whole>{
                             out<T>(op.x), cosine, sine, op.row_stride, static_cast<i32>(op.head_dim),
                             static_cast<i32>(quads_of(half)), static_cast<i32>(op.seq_len), op.inverse});
        });
    });
}

namespace {

/// Calls `launch` with the largest piece, of 16 bytes at most, that rows of `row_bytes` at these addresses
/// are whole ones of.
template <class Launch>
void with_pieces(i64 row_bytes, const void* from, const void* to, Launch&& launch) {
    const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(from) |
                                reinterpret_cast<std::uintptr_t>(to) | static_cast<std::uintptr_t>(row_bytes);
    if (bits % 16 == 0) return launch(TypeTag<uint4>{});
    if (bits % 8 == 0) return launch(TypeTag<uint2>{});
    if (bits % 4 == 0) return launch(TypeTag<u32>{});
    launch(TypeTag<std::uint16_t>{});
}

/// place may be null.
void gather(const Launcher& on, ConstTensorView from, const i32* index, i64 rows, const i32* place,
            TensorView to) {
    const i64 row_bytes = from.cols() * size_of(from.dtype);
    with_pieces(row_bytes, from.data, to.data, [&]<class Piece>(TypeTag<Piece>) {
        const i64 width = row_bytes / static_cast<i64>(sizeof(Piece));
        on.each_tile(rows, width,
                     kernels::GatherTile<Piece>{static_cast<const Piece*>(from.data), index, place,
                                                static_cast<Piece*>(to.data), width});
    });
}

}  // namespace

void CudaBackend::embedding(Stream& stream, const Embedding& op) {
    const Launcher on = checked(stream, &Backend::embedding, op);
    gather(on, op.table, in<i32>(op.index), op.y.rows(), nullptr, op.y);
}

void CudaBackend::embedding_backward(Stream& stream, const EmbeddingGrad& op) {
    const Launcher on = checked(stream, &Backend::embedding_backward, op);
    const i64 rows = op.dy.rows(), width = op.d_table.cols();
    Tensor room = allocate({2, rows}, DType::int32);
    i32 *const order = room.as<i32>(), *const sorted = order + rows;
    on.each_team(quotient_up(rows, kernels::IndexOrder::kRows),
                 kernels::IndexOrder{in<i32>(op.index), rows, order, sorted});
    with_stored(op.dy.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(are_whole_quads(width, in<T>(op.dy), in<Real<T>>(op.d_table)), [&](auto whole) {
            const T* const dy = in<T>(op.dy);
            Real<T>* const d_table = out<Real<T>>(op.d_table);
            on.each_row_of(rows, width,
                           kernels::EmbeddingGradRow<T, whole>{order, sorted, dy, d_table, rows, width});
            using Run = kernels::EmbeddingGradRun<T, whole>;
            const i64 panels = quotient_up(width, Run::kColumns);
            on.each_team(quotient_up(rows, kernels::kMostOfRow) * panels,
                         Run{order, sorted, dy, d_table, rows, width, static_cast<i32>(panels)});
        });
    });
}

void CudaBackend::gather_rows(Stream& stream, const GatherRows& op) {
    const Launcher on = checked(stream, &Backend::gather_rows, op);
    const i64 width = op.in.cols(), rows = op.index.elements();
    if (!op.accumulate) return gather(on, op.in, in<i32>(op.index), rows, in_or_null<i32>(op.place), op.out);
    with_stored(op.in.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(are_whole_quads(width, in<T>(op.in), in<T>(op.out)), [&](auto whole) {
            on.each_tile(
                rows, quads_of(width),
                kernels::GatherAddTile<T, whole>{in<T>(op.in), in<i32>(op.index), out<T>(op.out), width});
        });
    });
}

void CudaBackend::cross_entropy(Stream& stream, const CrossEntropy& op) {
    const Launcher on = checked(stream, &Backend::cross_entropy, op);
    with_real(op.logits.dtype, [&]<class T>(TypeTag<T>) {
        const i64 rows = op.logits.rows(), columns = op.logits.cols();
        const kernels::CrossEntropyRow<T> row{in<T>(op.logits),
                                              in<i32>(op.target),
                                              out<double>(op.loss),
                                              out<double>(op.log_sum_exp),
                                              out_or_null<i32>(op.wrong),
                                              out_or_null<double>(op.margin),
                                              columns};
        columns > kernels::kColumnsOfWarp ? on.each_block(rows, row) : on.each_row(rows, row);
    });
}

void CudaBackend::cross_entropy_backward(Stream& stream, const CrossEntropyGrad& op) {
    const Launcher on = checked(stream, &Backend::cross_entropy_backward, op);
    const i64 rows = op.logits.rows(), columns = op.logits.cols();
    const i64 parts = quotient_up(columns, kernels::kGradColumns);
    with_real(op.logits.dtype, [&]<class T>(TypeTag<T>) {
        on.each_block(rows * parts, kernels::CrossEntropyGradPart<T>{
                                        in<T>(op.logits), in<i32>(op.target), in<double>(op.log_sum_exp),
                                        out<T>(op.d_logits), op.scale, columns, parts});
    });
}

void CudaBackend::squared_error(Stream& stream, const SquaredError& op) {
    const Launcher on = checked(stream, &Backend::squared_error, op);
    with_real(op.output.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.output.rows(), kernels::SquaredErrorRow<T>{in<T>(op.output), in<double>(op.target),
                                                              out<double>(op.loss), op.output.cols()});
    });
}

void CudaBackend::squared_error_backward(Stream& stream, const SquaredErrorGrad& op) {
    const Launcher on = checked(stream, &Backend::squared_error_backward, op);
    const double factor = op.scale * 2 / static_cast<double>(op.output.cols());
    with_real(op.output.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.output.elements(),
                kernels::SquaredErrorGradElement<T>{in<T>(op.output), in<double>(op.target),
                                                    out<T>(op.d_output), factor});
    });
}

namespace {

template <Function kind>
struct FunctionTag {
    static constexpr Function kKind = kind;
};

template <class Launch>
void with_function(ActivationKind kind, Launch&& launch) {
    switch (kind) {
        case ActivationKind::swiglu:
            return launch(FunctionTag<Function::swiglu>{});
        case ActivationKind::gelu:
            return launch(FunctionTag<Function::gelu>{});
        case ActivationKind::relu:
            return launch(FunctionTag<Function::relu>{});
        case ActivationKind::prelu:
            return launch(FunctionTag<Function::prelu>{});
    }
}

}  // namespace

const i64* CudaBackend::first_rows(Stream& stream, std::span<const i64> rows_per_group, Tensor& room) {
    if (rows_per_group.empty()) return nullptr;
    numbers_.assign(1, 0);
    for (const i64 rows : rows_per_group) numbers_.push_back(numbers_.back() + rows);
    upload(stream, numbers_.data(), std::ssize(numbers_) * 8, room);
    return room.as<i64>();
}

void CudaBackend::activation(Stream& stream, const Activation& op) {
    const Launcher on = checked(stream, &Backend::activation, op);
    const i64 width = op.y.cols();
    Tensor room;
    const i64* const first = first_rows(stream, op.rows_per_group, room);
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        const kernels::Slopes<T> slopes{in_or_null<T>(op.slope), first, std::ssize(op.rows_per_group)};
        with_quads<T>(are_whole_quads(width, in<T>(op.x), in<T>(op.y)), [&](auto whole) {
            with_function(op.kind, [&]<Function kind>(FunctionTag<kind>) {
                on.each_tile(
                    op.y.rows(), quads_of(width),
                    kernels::ActivationTile<kind, T, whole>{in<T>(op.x), out<T>(op.y), width, slopes});
            });
        });
    });
}

void CudaBackend::activation_backward(Stream& stream, const ActivationGrad& op) {
    const Launcher on = checked(stream, &Backend::activation_backward, op);
    const i64 width = op.dy.cols(), groups = std::ssize(op.rows_per_group);
    Tensor room;
    const i64* const first = first_rows(stream, op.rows_per_group, room);
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        const T *const x = in<T>(op.x), *const dy = in<T>(op.dy);
        if (op.kind == ActivationKind::prelu)
            on.each_row(groups, kernels::SlopeGradRow<T>{x, dy, first, width, out<double>(op.d_slope)});
        const kernels::Slopes<T> slopes{in_or_null<T>(op.slope), first, groups};
        with_quads<T>(are_whole_quads(width, x, dy, in<T>(op.dx)), [&](auto whole) {
            with_function(op.kind, [&]<Function kind>(FunctionTag<kind>) {
                on.each_tile(
                    op.dy.rows(), quads_of(width),
                    kernels::ActivationGradTile<kind, T, whole>{x, dy, out<T>(op.dx), width, slopes});
            });
        });
    });
}

}  // namespace moesaic
