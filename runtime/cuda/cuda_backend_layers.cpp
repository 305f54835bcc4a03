#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/activation.h"
#include "runtime/cuda/kernels/layers.h"
#include "runtime/cuda/kernels/loss.h"
#include "runtime/cuda/kernels/routing.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;
using kernels::Function;

void CudaBackend::rms_norm(Stream& stream, const RmsNorm& op) {
    const Launcher on = checked(stream, &Backend::rms_norm, op);
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(op.inverse_rms.elements(),
                    kernels::NormRow<T>{in<T>(op.x), in<T>(op.weight), out<T>(op.y),
                                        out<Real<T>>(op.inverse_rms), op.weight.elements(), op.eps});
    });
}

void CudaBackend::rms_norm_backward(Stream& stream, const RmsNormGrad& op) {
    const Launcher on = checked(stream, &Backend::rms_norm_backward, op);
    const i64 n = op.weight.elements(), rows = op.inverse_rms.elements();
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        const Real<T>* const inverse = in<Real<T>>(op.inverse_rms);
        // The weight first: dx may be the memory of dy.
        on.each(n, kernels::NormWeightGradElement<T>{in<T>(op.x), in<T>(op.dy), inverse,
                                                     out<Real<T>>(op.d_weight), rows, n});
        on.each_row(rows, kernels::NormGradRow<T>{in<T>(op.x), in<T>(op.weight), in<T>(op.dy), inverse,
                                                  out<T>(op.dx), n, op.accumulate_dx});
    });
}

void CudaBackend::rope(Stream& stream, const Rope& op) {
    const Launcher on = checked(stream, &Backend::rope, op);
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.x.elements() / 2,
                kernels::RopeElement<T>{out<T>(op.x), in<Real<T>>(op.cosine), in<Real<T>>(op.sine),
                                        op.row_stride, op.heads, op.head_dim, op.seq_len, op.inverse});
    });
}

namespace {

/// Moves elements of any type by their size.
template <class Launch>
void with_size_of(DType dtype, Launch&& launch) {
    switch (size_of(dtype)) {
        case 2:
            return launch(TypeTag<std::uint16_t>{});
        case 4:
            return launch(TypeTag<u32>{});
        default:
            return launch(TypeTag<u64>{});
    }
}

}  // namespace

void CudaBackend::embedding(Stream& stream, const Embedding& op) {
    const Launcher on = checked(stream, &Backend::embedding, op);
    with_size_of(op.y.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.y.elements(),
                kernels::GatherElement<T>{static_cast<const T*>(op.table.data), in<i32>(op.index), nullptr,
                                          static_cast<T*>(op.y.data), op.y.cols()});
    });
}

void CudaBackend::embedding_backward(Stream& stream, const EmbeddingGrad& op) {
    const Launcher on = checked(stream, &Backend::embedding_backward, op);
    with_stored(op.dy.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(op.dy.rows(),
                    kernels::EmbeddingGradRow<T>{in<i32>(op.index), in<T>(op.dy), out<Real<T>>(op.d_table),
                                                 op.dy.rows(), op.d_table.cols()});
    });
}

void CudaBackend::gather_rows(Stream& stream, const GatherRows& op) {
    const Launcher on = checked(stream, &Backend::gather_rows, op);
    const i64 width = op.in.cols(), elements = op.index.elements() * width;
    if (op.accumulate) {
        with_stored(op.in.dtype, [&]<class T>(TypeTag<T>) {
            on.each(elements,
                    kernels::GatherAddElement<T>{in<T>(op.in), in<i32>(op.index), out<T>(op.out), width});
        });
        return;
    }
    const i32* const place = op.place.shape.rank() > 0 ? in<i32>(op.place) : nullptr;
    with_size_of(op.in.dtype, [&]<class T>(TypeTag<T>) {
        on.each(elements, kernels::GatherElement<T>{static_cast<const T*>(op.in.data), in<i32>(op.index),
                                                    place, static_cast<T*>(op.out.data), width});
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
    const i64 parts = (columns + kernels::kGradColumns - 1) / kernels::kGradColumns;
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
    Tensor room;
    const i64* const first = first_rows(stream, op.rows_per_group, room);
    with_function(op.kind, [&]<Function kind>(FunctionTag<kind>) {
        with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
            on.each(op.y.elements(), kernels::ActivationElement<kind, T>{
                                         in<T>(op.x),
                                         out<T>(op.y),
                                         op.y.cols(),
                                         {in_or_null<T>(op.slope), first, std::ssize(op.rows_per_group)}});
        });
    });
}

void CudaBackend::activation_backward(Stream& stream, const ActivationGrad& op) {
    const Launcher on = checked(stream, &Backend::activation_backward, op);
    const i64 width = op.dy.cols(), groups = std::ssize(op.rows_per_group);
    Tensor room;
    const i64* const first = first_rows(stream, op.rows_per_group, room);
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        with_function(op.kind, [&]<Function kind>(FunctionTag<kind>) {
            if constexpr (kind == Function::prelu)
                on.each_row(groups, kernels::SlopeGradRow<T>{in<T>(op.x), in<T>(op.dy), first, width,
                                                             out<double>(op.d_slope)});
            on.each(op.dy.elements(),
                    kernels::ActivationGradElement<kind, T>{in<T>(op.x),
                                                            in<T>(op.dy),
                                                            out<T>(op.dx),
                                                            width,
                                                            {in_or_null<T>(op.slope), first, groups}});
        });
    });
}

}  // namespace moesaic
