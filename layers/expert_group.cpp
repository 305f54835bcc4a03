#include "layers/expert_group.h"

#include <algorithm>

namespace moesaic {

namespace {

constexpr i64 kRowsInOrder = 256;

/// Indexed rows, some at a time, for products that take no index.
class RowsInOrder {
  public:
    RowsInOrder(StepContext& context, const IndexedRows& rows) : rows_(rows) {
        if (rows.index.data)
            memory_ = context.backend.allocate({kRowsInOrder, rows.rows.cols()}, rows.rows.dtype);
    }
    /// Valid until the next call; count is at most kRowsInOrder.
    [[nodiscard]] ConstTensorView in_order(StepContext& context, i64 first, i64 count) {
        const IndexedRows part = rows_.slice(first, count);
        if (!part.index.data) return part.rows;
        const TensorView moved = memory_.slice_rows(0, count);
        gather_rows(context, part, moved);
        return moved;
    }

  private:
    IndexedRows rows_;
    Tensor memory_;
};

/// Rows [first, first + count) of one expert from one source.
struct SourceRows {
    i64 expert, source, first, count;
};

/// Those that there are, expert by expert, the sources from `first_source` on and then the ones before it.
/// rows_per_source [experts,W].
std::vector<SourceRows> in_order(std::span<const i64> rows_per_source, i64 experts, i64 first_source) {
    const i64 sources = experts > 0 ? std::ssize(rows_per_source) / experts : 0;
    std::vector<SourceRows> segments;
    i64 first = 0;
    for (i64 expert = 0; expert < experts; ++expert) {
        const auto begin = std::ssize(segments);
        auto middle = begin;
        for (i64 source = 0; source < sources; ++source) {
            const i64 rows = rows_per_source[static_cast<std::size_t>(expert * sources + source)];
            if (rows > 0) segments.push_back({expert, source, first, rows});
            if (source < first_source) middle = std::ssize(segments);
            first += rows;
        }
        std::rotate(segments.begin() + begin, segments.begin() + middle, segments.end());
    }
    return segments;
}

using OpenSources = ExpertGroup::OpenSources;

struct Gradient {
    const Weight& weight;  // [e,M,N]
    IndexedRows dy, x;     // [R,M], [R,N]
    OpenSources::Rows& waiting;
};

/// Its sum where a source's rows may go on in the next round: partial sums wait in the gradients, and of rows
/// that a product takes together, those that have not all come.
class GradientOfRound {
  public:
    GradientOfRound(StepContext& context, const Gradient& gradient, OpenSources::Numbers open)
        : context_(context),
          gradient_(gradient),
          dy_(context, gradient.dy),
          x_(context, gradient.x),
          open_(std::move(open)),
          together_(context.backend.addends_together(gradient.dy.rows.dtype)) {
        MOESAIC_ASSERT(kRowsInOrder % together_ == 0, "{} rows of {} together", kRowsInOrder, together_);
        if (together_ == 1 || gradient.waiting.dy) return;
        const auto room = [&](ConstTensorView rows) {
            return context.backend.allocate({together_, rows.cols()}, rows.dtype);
        };
        gradient.waiting = {room(gradient.dy.rows), room(gradient.x.rows)};
    }

    /// Segments come expert by expert: only a round's last one goes on in the next.
    void add(const SourceRows& segment) {
        i64& source = open_.source[static_cast<std::size_t>(segment.expert)];
        const bool goes_on = source == segment.source;
        if (!goes_on || open_.expert != segment.expert) multiply_waiting();
        if (!goes_on && source >= 0) gradient_.weight.fold_rows(context_.compute, segment.expert, 1);
        source = segment.source;
        open_.expert = segment.expert;
        const i64 end = segment.first + segment.count;
        for (i64 first = segment.first; first < end;) {  // in whatever pieces, the bits are the same
            const i64 whole = std::min(kRowsInOrder, (end - first) / together_ * together_);
            if (open_.waiting == 0 && whole > 0) {
                multiply(dy_.in_order(context_, first, whole), x_.in_order(context_, first, whole));
                first += whole;
                continue;
            }
            const i64 count = std::min(end - first, together_ - open_.waiting);
            wait(dy_.in_order(context_, first, count), gradient_.waiting.dy);
            wait(x_.in_order(context_, first, count), gradient_.waiting.x);
            open_.waiting += count;
            first += count;
            if (open_.waiting == together_) multiply_waiting();
        }
    }
    /// No rows follow.
    void finish() {
        multiply_waiting();
        gradient_.weight.fold_rows(context_.compute, 0, std::ssize(open_.source));
    }
    [[nodiscard]] const OpenSources::Numbers& numbers() const { return open_; }

  private:
    void multiply(ConstTensorView dy, ConstTensorView x) {
        const TensorView grad = gradient_.weight.grad().slice_rows(open_.expert, 1);
        context_.backend.gemm(context_.compute, {.a = dy,
                                                 .b = x,
                                                 .c = grad.reshaped({grad.shape[1], grad.shape[2]}),
                                                 .trans_a = true,
                                                 .accumulate = true});
    }
    void multiply_waiting() {
        const auto& [dy, x] = gradient_.waiting;
        if (open_.waiting > 0) multiply(dy.slice_rows(0, open_.waiting), x.slice_rows(0, open_.waiting));
        open_.waiting = 0;
    }
    void wait(ConstTensorView rows, Tensor& to) {
        context_.backend.copy(context_.compute, rows, to.slice_rows(open_.waiting, rows.rows()));
    }

    StepContext& context_;
    const Gradient& gradient_;
    RowsInOrder dy_, x_;
    OpenSources::Numbers open_;
    i64 together_;
};

/// The sum of weight[expert] += dy[rows]ᵀ · x[rows], source by source. Returns what is open afterwards.
OpenSources::Numbers weight_gradient(StepContext& context, const Gradient& gradient,
                                     std::span<const i64> rows_per_source, ExpertGroup::Round round,
                                     const OpenSources::Numbers& open) {
    if (round.count == 1 && !gradient.weight.sums_exactly()) {
        context.backend.grouped_gemm_weight_grad(context.compute, {.a = gradient.dy.rows,
                                                                   .b = gradient.x.rows,
                                                                   .c = gradient.weight.sum(),
                                                                   .rows_per_part = rows_per_source,
                                                                   .a_rows = gradient.dy.index,
                                                                   .b_rows = gradient.x.index,
                                                                   .from_zero = gradient.weight.start_sum()});
        return open;
    }
    gradient.weight.clear_sum(context.compute);
    gradient.weight.clear_grad(context.compute);
    GradientOfRound sums(context, gradient, open);
    for (const SourceRows& segment : in_order(rows_per_source, std::ssize(open.source), round.first_source))
        sums.add(segment);
    if (round.index + 1 == round.count) sums.finish();
    return sums.numbers();
}

}  // namespace

ExpertGroup::ExpertGroup(const ModelSpec& spec, int layer, std::span<const i32> numbers, ExpertSlice slice,
                         i64 capacity_rows, ParameterStore& store)
    : width_(spec.width),
      hidden_(spec.hidden / slice.count),
      capacity_rows_(capacity_rows),
      activation_(spec.activation) {
    MOESAIC_ASSERT(spec.hidden % slice.count == 0, "a width of {} in {} slices", spec.hidden, slice.count);
    const i64 halves = activation_halves(activation_), experts = std::ssize(numbers);
    const auto declared = [&](i64 expert, std::string_view kind, Shape shape, int cut_axis) {
        Parameter parameter;
        parameter.name = block_parameter_name(layer, fmt::format("mlp.experts.{}.{}.weight", expert, kind));
        parameter.shape = shape;
        parameter.placement = Placement::expert;
        parameter.layer = layer;
        parameter.expert = expert;
        parameter.slice = {slice.index, slice.count, cut_axis};
        parameter.folds_itself = true;
        if (shape.rank() == 1) {
            parameter.init_constant = kInitialSlope;
        } else {
            parameter.init_std = spec.init_std;
        }
        return parameter;
    };
    std::vector<Parameter> up, down, slope;
    for (const i32 expert : numbers) {
        if (halves == 2) up.push_back(declared(expert, "gate_proj", {hidden_, width_}, 0));
        up.push_back(declared(expert, "up_proj", {hidden_, width_}, 0));
        down.push_back(declared(expert, "down_proj", {width_, hidden_}, 1));
        slope.push_back(declared(expert, "act_fn", {1}, -1));
    }
    up_ = store.declare(std::move(up), {experts, halves * hidden_, width_});
    down_ = store.declare(std::move(down), {experts, width_, hidden_});
    if (activation_ == ActivationKind::prelu) slope_ = store.declare(std::move(slope), {experts});
    store.used_in_products(up_, halves);
    store.used_in_products(down_);
    store.starts_sum(up_);
    store.starts_sum(down_);
}

void ExpertGroup::allocate(StepContext& context, DType dtype, Saved& saved) const {
    saved.preactivation =
        context.backend.allocate({capacity_rows_, activation_halves(activation_) * hidden_}, dtype);
    saved.hidden = context.backend.allocate({capacity_rows_, hidden_}, dtype);
}

void ExpertGroup::recompute(StepContext& context, const IndexedRows& rows,
                            std::span<const i64> rows_per_expert, Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.count();
    allocate(context, rows.rows.dtype, saved);
    backend.grouped_gemm_activation(context.compute,
                                    {.a = rows.rows,
                                     .b = up_.value(),
                                     .c = saved.preactivation.slice_rows(0, received),
                                     .rows_per_group = rows_per_expert,
                                     .trans_b = true,
                                     .packed_b = up_.packed_transposed(),
                                     .a_rows = rows.index},
                                    {.kind = activation_,
                                     .x = {},
                                     .y = saved.hidden.slice_rows(0, received),
                                     .slope = slope_.value_or_empty()});
}

void ExpertGroup::forward(StepContext& context, const IndexedRows& rows, std::span<const i64> rows_per_expert,
                          TensorView out, Saved& saved) const {
    recompute(context, rows, rows_per_expert, saved);
    context.backend.grouped_gemm(context.compute, {.a = saved.hidden.slice_rows(0, rows.count()),
                                                   .b = down_.value(),
                                                   .c = out,
                                                   .rows_per_group = rows_per_expert,
                                                   .trans_b = true,
                                                   .packed_b = down_.packed_transposed()});
}

void ExpertGroup::backward(StepContext& context, const IndexedRows& rows,
                           std::span<const i64> rows_per_expert, std::span<const i64> rows_per_source,
                           const IndexedRows& d_out, TensorView d_rows, Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.count();
    const ConstTensorView hidden = saved.hidden.slice_rows(0, received);
    const TensorView preactivation = saved.preactivation.slice_rows(0, received);  // [R,hF]
    const TensorView d_preactivation = preactivation;                              // which it becomes

    auto& [open, of_up, of_down] = saved.open;
    open.source.resize(rows_per_expert.size(), -1);
    const OpenSources::Numbers after_down =
        weight_gradient(context, {down_, d_out, {hidden}, of_down}, rows_per_source, saved.round, open);
    backend.grouped_gemm_activation_backward(context.compute,
                                             {.a = d_out.rows,
                                              .b = down_.value(),
                                              .c = {},
                                              .rows_per_group = rows_per_expert,
                                              .packed_b = down_.packed_plain(),
                                              .a_rows = d_out.index},
                                             {.kind = activation_,
                                              .x = preactivation,
                                              .dy = {},
                                              .dx = d_preactivation,
                                              .slope = slope_.value_or_empty(),
                                              .d_slope = slope_.sum_or_empty()});
    backend.grouped_gemm(context.compute, {.a = d_preactivation,
                                           .b = up_.value(),
                                           .c = d_rows,
                                           .rows_per_group = rows_per_expert,
                                           .packed_b = up_.packed_plain()});
    open =
        weight_gradient(context, {up_, {d_preactivation}, rows, of_up}, rows_per_source, saved.round, open);
    MOESAIC_ASSERT(open == after_down, "{} and {} rows wait", open.waiting, after_down.waiting);
}

}  // namespace moesaic
