#include "layers/expert_padding.h"

namespace moesaic {

namespace {

/// In memory for `rows`, so that its size does not depend on routing.
Tensor upload(StepContext& context, const std::vector<i32>& values, i64 rows) {
    const auto count = static_cast<i64>(values.size());
    Tensor tensor = context.backend.allocate({rows}, DType::int32);
    if (count > 0) {
        context.backend.copy(context.compute, view_of(values.data(), {count}), tensor.slice_rows(0, count));
    }
    return tensor;
}

}  // namespace

ExpertPadding::ExpertPadding(StepContext& context, i64 rows, std::span<const i64> rows_per_expert,
                             std::span<const i64> rows_per_source)
    : rows_per_expert_(rows_per_expert.size(), rows) {
    const std::size_t sources = rows_per_source.size() / rows_per_expert.size();
    for (std::size_t expert = 0; expert < rows_per_expert.size(); ++expert) {
        const i64 filled = rows_per_expert[expert];
        MOESAIC_ASSERT(filled <= rows, "{} rows for expert {} of a capacity of {}", filled, expert, rows);
        for (i64 row = 0; row < rows; ++row) {
            const auto grouped = static_cast<i32>(host_from_padded_.size());
            host_from_grouped_.push_back(row < filled ? grouped : -1);
            if (row < filled) host_from_padded_.push_back(static_cast<i32>(host_from_grouped_.size()) - 1);
        }
        const auto first = rows_per_source.begin() + static_cast<std::ptrdiff_t>(expert * sources);
        rows_per_source_.insert(rows_per_source_.end(), first, first + static_cast<std::ptrdiff_t>(sources));
        rows_per_source_.push_back(rows - filled);
    }
    const auto padded = static_cast<i64>(host_from_grouped_.size());
    from_grouped_ = upload(context, host_from_grouped_, padded);
    from_padded_ = upload(context, host_from_padded_, padded);
}

Tensor ExpertPadding::pad(StepContext& context, const IndexedRows& by_expert) const {
    const ConstTensorView rows = by_expert.rows;
    Tensor padded = context.backend.allocate({from_grouped_.rows(), rows.cols()}, rows.dtype);
    Tensor grouped;
    if (by_expert.index.data) {
        grouped = context.backend.allocate({from_grouped_.rows(), rows.cols()}, rows.dtype);
        gather_rows(context, by_expert, grouped.slice_rows(0, by_expert.count()));
    }
    context.backend.gather_rows(
        context.compute,
        {.in = grouped ? ConstTensorView(grouped) : rows, .index = from_grouped_, .out = padded});
    return padded;
}

void ExpertPadding::unpad(StepContext& context, ConstTensorView padded, TensorView grouped) const {
    context.backend.gather_rows(
        context.compute, {.in = padded, .index = from_padded_.slice_rows(0, grouped.rows()), .out = grouped});
}

}  // namespace moesaic
