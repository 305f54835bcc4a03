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

void ExpertGroup::weight_gradient(StepContext& context, const Gradient& gradient,
                                  std::span<const i64> rows_per_source, Round round,
                                  std::vector<i64> open_source) {
    const auto experts = open_source.size();
    if (round.count == 1 && !gradient.weight.sums_exactly()) {
        context.backend.grouped_gemm_weight_grad(context.compute, {.a = gradient.dy.rows,
                                                                   .b = gradient.x.rows,
                                                                   .c = gradient.weight.sum(),
                                                                   .rows_per_part = rows_per_source,
                                                                   .a_rows = gradient.dy.index,
                                                                   .b_rows = gradient.x.index,
                                                                   .from_zero = gradient.weight.start_sum()});
        return;
    }
    gradient.weight.clear_sum(context.compute);
    weight_gradient_of_round(context, gradient, rows_per_source, round.first_source, std::move(open_source));
    if (round.index + 1 == round.count)
        gradient.weight.fold_rows(context.compute, 0, static_cast<i64>(experts));
}

void ExpertGroup::weight_gradient_of_round(StepContext& context, const Gradient& gradient,
                                           std::span<const i64> rows_per_source, i64 first_source,
                                           std::vector<i64> open_source) {
    RowsInOrder dy(context, gradient.dy), x(context, gradient.x);
    for (const SourceRows& segment : in_order(rows_per_source, std::ssize(open_source), first_source)) {
        const auto& [expert, source, begin, rows] = segment;
        i64 first = begin;
        i64& open = open_source[static_cast<std::size_t>(expert)];
        if (open >= 0 && open != source) gradient.weight.fold_rows(context.compute, expert, 1);
        open = source;
        const TensorView grad = gradient.weight.grad().slice_rows(expert, 1);
        const TensorView sum = grad.reshaped({grad.shape[1], grad.shape[2]});
        for (const i64 end = first + rows; first < end;) {  // in whatever pieces, the bits are the same
            const i64 count = std::min(kRowsInOrder, end - first);
            context.backend.gemm(context.compute, {.a = dy.in_order(context, first, count),
                                                   .b = x.in_order(context, first, count),
                                                   .c = sum,
                                                   .trans_a = true,
                                                   .accumulate = true});
            first += count;
        }
    }
}

void ExpertGroup::backward(StepContext& context, const IndexedRows& rows,
                           std::span<const i64> rows_per_expert, std::span<const i64> rows_per_source,
                           const IndexedRows& d_out, TensorView d_rows, Saved& saved) const {
    Backend& backend = context.backend;
    const i64 received = rows.count();
    const ConstTensorView hidden = saved.hidden.slice_rows(0, received);
    const TensorView preactivation = saved.preactivation.slice_rows(0, received);  // [R,hF]
    const TensorView d_preactivation = preactivation;                              // which it becomes

    saved.open_source.resize(rows_per_expert.size(), -1);
    weight_gradient(context, {down_, d_out, {hidden}}, rows_per_source, saved.round, saved.open_source);
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
    weight_gradient(context, {up_, {d_preactivation}, rows}, rows_per_source, saved.round, saved.open_source);
    for (const SourceRows& segment :
         in_order(rows_per_source, std::ssize(saved.open_source), saved.round.first_source))
        saved.open_source[static_cast<std::size_t>(segment.expert)] = segment.source;
}

}  // namespace moesaic
