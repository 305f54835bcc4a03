#include "runtime/cpu/bf16_products.h"

#include <algorithm>
#include <numeric>

#include "runtime/cpu/checks.h"

namespace moesaic::cpu {

namespace {

constexpr i64 kRowsAtOnce = 256;

/// Runs f32 work on operands of which some are bf16.
class Widening {
  public:
    Widening(Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}

    /// Room for `rows` rows of a bf16 operand; none for an f32 operand.
    [[nodiscard]] Tensor room(ConstTensorView operand, i64 rows) const {
        if (operand.dtype != DType::bf16) return {};
        const MemoryUseScope use(backend_.pool(), MemoryUse::widened);
        return backend_.allocate({rows, operand.cols()}, DType::f32);
    }
    /// The operand in f32: itself, or widened into `room`.
    [[nodiscard]] ConstTensorView read(ConstTensorView operand, Tensor& room) const {
        if (!room) return operand;
        const TensorView wide = uninitialised(operand, room);
        backend_.convert(stream_, operand, wide);
        return wide;
    }
    [[nodiscard]] ConstTensorView read(ConstTensorView operand) {
        kept_.push_back(room(operand, operand.rows()));
        return read(operand, kept_.back());
    }
    /// Where the f32 operation leaves what `finish` rounds into `result`; with `keep` it starts from it.
    [[nodiscard]] TensorView write(TensorView result, Tensor& room, bool keep) const {
        if (!room) return result;
        const TensorView wide = uninitialised(result, room);
        if (keep) backend_.convert(stream_, result, wide);
        return wide;
    }
    void finish(TensorView result, Tensor& room) const {
        if (room) backend_.convert(stream_, uninitialised(result, room), result);
    }

  private:
    [[nodiscard]] static TensorView uninitialised(ConstTensorView operand, Tensor& room) {
        return room.view().flat(0, operand.elements()).reshaped(operand.shape);
    }
    Backend& backend_;
    Stream& stream_;
    std::vector<Tensor> kept_;
};

/// Some rows of an operand, or of one of which an index says the rows: those are brought together.
class RowReader {
  public:
    RowReader(Backend& backend, Stream& stream, ConstTensorView operand, ConstTensorView index)
        : backend_(backend), stream_(stream), operand_(operand), index_(index) {
        if (index.data) room_ = backend.allocate({kRowsAtOnce, operand.cols()}, operand.dtype);
    }
    /// Valid until the next call; count is at most kRowsAtOnce.
    [[nodiscard]] ConstTensorView read(i64 first, i64 count) {
        if (!index_.data) return operand_.slice_rows(first, count);
        const TensorView rows = room_.slice_rows(0, count);
        backend_.gather_rows(stream_,
                             {.in = operand_, .index = index_.slice_rows(first, count), .out = rows});
        return rows;
    }

  private:
    Backend& backend_;
    Stream& stream_;
    ConstTensorView operand_, index_;
    Tensor room_;
};

/// c [M,N] (+)= a [M,P] · op(b), b being real already; rows of c do not know of each other.
void multiply_rows(Backend& backend, Stream& stream, const Gemm& operation, ConstTensorView a_rows = {}) {
    const Widening widening(backend, stream);
    RowReader a(backend, stream, operation.a, a_rows);
    Tensor a_room = widening.room(operation.a, kRowsAtOnce), c_room = widening.room(operation.c, kRowsAtOnce);
    for (i64 first = 0; first < operation.c.rows(); first += kRowsAtOnce) {
        const i64 count = std::min(kRowsAtOnce, operation.c.rows() - first);
        const TensorView c = operation.c.slice_rows(first, count);
        Gemm part = operation;
        part.a = widening.read(a.read(first, count), a_room);
        part.c = widening.write(c, c_room, operation.accumulate);
        backend.gemm(stream, part);
        widening.finish(c, c_room);
    }
}

/// What names the rows of a and b where they do not stand in order; empty: they do.
struct RowIndices {
    ConstTensorView a, b;
    [[nodiscard]] RowIndices slice(i64 first, i64 count) const {
        const auto of = [&](ConstTensorView index) {
            return index.data ? index.slice_rows(first, count) : index;
        };
        return {of(a), of(b)};
    }
};

/// c [M,N] (+)= aᵀ · b with a [P,M], b [P,N]: sums over rows go on where the rows before left them.
void sum_over_rows(Backend& backend, Stream& stream, const Gemm& operation, i64 rows,
                   const RowIndices& indices = {}) {
    const Widening widening(backend, stream);
    RowReader a(backend, stream, operation.a, indices.a), b(backend, stream, operation.b, indices.b);
    Tensor a_room = widening.room(operation.a, kRowsAtOnce), b_room = widening.room(operation.b, kRowsAtOnce);
    Tensor c_room = widening.room(operation.c, operation.c.rows());
    Gemm part = operation;
    part.c = widening.write(operation.c, c_room, operation.accumulate);
    i64 first = 0;
    do {  // also once without rows, which may have to write zeros
        const i64 count = std::min(kRowsAtOnce, rows - first);
        part.a = widening.read(a.read(first, count), a_room);
        part.b = widening.read(b.read(first, count), b_room);
        backend.gemm(stream, part);
        part.accumulate = true;
        first += count;
    } while (first < rows);
    widening.finish(operation.c, c_room);
}

void expect_narrow(std::initializer_list<ConstTensorView> operands, std::string_view name) {
    for (const ConstTensorView& view : operands) {
        MOESAIC_ASSERT(view.dtype == DType::f32 || view.dtype == DType::bf16, "{} mixes bf16 with {}", name,
                       name_of(view.dtype));
        expect(view, view.dtype, name);
    }
}

}  // namespace

void gemm_in_f32(Backend& backend, Stream& stream, const Gemm& operation) {
    expect_narrow({operation.a, operation.b, operation.c}, "gemm");
    Widening widening(backend, stream);
    Gemm wide = operation;
    if (operation.trans_a && !operation.trans_b)
        return sum_over_rows(backend, stream, operation, operation.a.rows());
    wide.b = widening.read(operation.b);
    if (!operation.trans_a) return multiply_rows(backend, stream, wide);
    wide.a = widening.read(operation.a);
    Tensor room = widening.room(operation.c, operation.c.rows());
    wide.c = widening.write(operation.c, room, operation.accumulate);
    backend.gemm(stream, wide);
    widening.finish(operation.c, room);
}

void grouped_gemm_in_f32(Backend& backend, Stream& stream, const GroupedGemm& operation) {
    expect_narrow({operation.a, operation.b, operation.c}, "grouped_gemm");
    const Widening widening(backend, stream);
    const i64 inner = operation.a.cols(), width = operation.c.cols();
    const RowIndices indices{operation.a_rows, {}};
    Tensor room = widening.room(operation.b, 1);
    i64 first = 0;
    for (i64 group = 0; group < std::ssize(operation.rows_per_group); ++group) {
        const i64 rows = operation.rows_per_group[static_cast<std::size_t>(group)];
        if (rows == 0) continue;
        const ConstTensorView b = widening.read(operation.b.slice_rows(group, 1), room);
        multiply_rows(backend, stream,
                      {.a = indices.a.data ? operation.a : operation.a.slice_rows(first, rows),
                       .b = b.reshaped(operation.trans_b ? Shape{width, inner} : Shape{inner, width}),
                       .c = operation.c.slice_rows(first, rows),
                       .trans_b = operation.trans_b,
                       .accumulate = operation.accumulate},
                      indices.slice(first, rows).a);
        first += rows;
    }
}

void grouped_gemm_weight_grad_in_f32(Backend& backend, Stream& stream,
                                     const GroupedGemmWeightGrad& operation) {
    expect_narrow({operation.a, operation.b}, "grouped_gemm_weight_grad");
    const i64 height = operation.a.cols(), width = operation.b.cols(), groups = operation.c.rows();
    if (groups == 0) return;
    const i64 parts = std::ssize(operation.rows_per_part) / groups;
    const RowIndices indices{operation.a_rows, operation.b_rows};
    const MemoryUseScope use(backend.pool(), MemoryUse::widened);
    Tensor sum = backend.allocate({height, width}, DType::f32);
    i64 first = 0;
    for (i64 part = 0; part < groups * parts; ++part) {
        const i64 rows = operation.rows_per_part[static_cast<std::size_t>(part)];
        if (rows == 0) continue;
        sum_over_rows(backend, stream,
                      {.a = indices.a.data ? operation.a : operation.a.slice_rows(first, rows),
                       .b = indices.b.data ? operation.b : operation.b.slice_rows(first, rows),
                       .c = sum,
                       .trans_a = true},
                      rows, indices.slice(first, rows));
        backend.fold(stream, sum, operation.c.slice_rows(part / parts, 1).reshaped({height, width}), {});
        first += rows;
    }
}

void grouped_gemm_activation_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                     const Activation& after) {
    const i64 rows = std::accumulate(product.rows_per_group.begin(), product.rows_per_group.end(), i64{0});
    backend.grouped_gemm(stream, product);
    Activation activation = after;
    activation.x = product.c.slice_rows(0, rows);
    activation.y = after.y.slice_rows(0, rows);
    if (after.kind == ActivationKind::prelu) activation.rows_per_group = product.rows_per_group;
    backend.activation(stream, activation);
}

/// Some rows at a time, so that the memory for dy depends on its width alone.
void grouped_gemm_activation_backward_in_turn(Backend& backend, Stream& stream, const GroupedGemm& product,
                                              const ActivationGrad& after) {
    const i64 inner = product.a.cols(), width = after.dx.cols() / activation_halves(after.kind);
    const i64 groups = std::ssize(product.rows_per_group);
    const Widening widening(backend, stream);
    Tensor b_room = widening.room(product.b, 1);
    Tensor dy_room = backend.allocate({kRowsAtOnce, width}, after.dx.dtype);
    RowReader a(backend, stream, product.a, product.a_rows);
    const i64 packed = groups > 0 ? product.packed_b.elements() / groups : 0;
    i64 first = 0;
    for (i64 group = 0; group < groups; ++group) {
        i64 left = product.rows_per_group[static_cast<std::size_t>(group)];
        if (left == 0) continue;
        const ConstTensorView b = widening.read(product.b.slice_rows(group, 1), b_room);
        for (i64 count = 0; left > 0; left -= count, first += count) {
            count = std::min(kRowsAtOnce, left);
            const TensorView dy = dy_room.slice_rows(0, count);
            multiply_rows(
                backend, stream,
                {.a = a.read(first, count),
                 .b = b.reshaped(product.trans_b ? Shape{width, inner} : Shape{inner, width}),
                 .c = dy,
                 .trans_b = product.trans_b,
                 .packed_b = packed > 0 ? product.packed_b.flat(group * packed, packed) : ConstTensorView()});
            ActivationGrad part = after;
            part.x = after.x.slice_rows(first, count);
            part.dy = dy;
            part.dx = after.dx.slice_rows(first, count);
            if (after.kind == ActivationKind::prelu) {
                part.slope = after.slope.slice_rows(group, 1);
                part.d_slope = after.d_slope.slice_rows(group, 1);
                part.rows_per_group = {&count, 1};
            }
            backend.activation_backward(stream, part);
        }
    }
}

void attention_in_f32(Backend& backend, Stream& stream, const Attention& operation) {
    Widening widening(backend, stream);
    Attention wide = operation;
    wide.q = widening.read(operation.q);
    wide.k = widening.read(operation.k);
    wide.v = widening.read(operation.v);
    expect(operation.out, DType::bf16, "attention out");
    Tensor out = widening.room(operation.out, operation.out.rows());
    wide.out = out;
    backend.attention(stream, wide);
    widening.finish(operation.out, out);
}

void attention_backward_in_f32(Backend& backend, Stream& stream, const AttentionGrad& operation) {
    Widening widening(backend, stream);
    AttentionGrad wide = operation;
    wide.q = widening.read(operation.q);
    wide.k = widening.read(operation.k);
    wide.v = widening.read(operation.v);
    wide.out = widening.read(operation.out);
    wide.d_out = widening.read(operation.d_out);
    for (const ConstTensorView view :
         {ConstTensorView(operation.dq), ConstTensorView(operation.dk), ConstTensorView(operation.dv)}) {
        expect(view, DType::bf16, "attention gradient");
    }
    Tensor dq = widening.room(operation.dq, operation.dq.rows());
    Tensor dk = widening.room(operation.dk, operation.dk.rows());
    Tensor dv = widening.room(operation.dv, operation.dv.rows());
    wide.dq = dq;
    wide.dk = dk;
    wide.dv = dv;
    backend.attention_backward(stream, wide);
    widening.finish(operation.dq, dq);
    widening.finish(operation.dk, dk);
    widening.finish(operation.dv, dv);
}

}  // namespace moesaic::cpu
