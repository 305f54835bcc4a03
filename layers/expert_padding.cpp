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

/// The first `count` rows of as many as `index` has memory for.
Tensor gather(StepContext& context, ConstTensorView in, const Tensor& index, i64 count) {
    Tensor out = context.backend.allocate({index.rows(), in.cols()}, in.dtype);
    context.backend.gather_rows(
        context.compute, {.in = in, .index = index.slice_rows(0, count), .out = out.slice_rows(0, count)});
    return out;
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

Tensor ExpertPadding::pad(StepContext& context, ConstTensorView grouped) const {
    return gather(context, grouped, from_grouped_, from_grouped_.rows());
}

Tensor ExpertPadding::unpad(StepContext& context, ConstTensorView padded) const {
    return gather(context, padded, from_padded_, std::ssize(host_from_padded_));
}

}  // namespace moesaic
