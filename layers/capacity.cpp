#include "layers/capacity.h"

#include <algorithm>
#include <cmath>

namespace moesaic {

namespace {

double whole_rows(const CapacitySpec& capacity, double tokens, double top_k, double experts) {
    const double share = tokens * top_k / experts * capacity.factor;
    switch (capacity.rounding) {
        case CapacityRounding::ceil:
            return std::ceil(share);
        case CapacityRounding::floor:
            return std::floor(share);
        case CapacityRounding::tutel:
            return top_k * std::floor(capacity.factor * std::ceil(tokens / experts));
        case CapacityRounding::fastmoe:
            return std::floor(std::ceil(capacity.factor * tokens) * top_k / experts);
        case CapacityRounding::colossalai:
            return 2 * std::ceil(std::floor(share) / 2);
        case CapacityRounding::olmo:
            return 8 * std::ceil(std::floor(share) / 8);
    }
    return share;
}

std::string_view name_of(CapacityRounding rounding) {
    switch (rounding) {
        case CapacityRounding::ceil:
            return "ceil";
        case CapacityRounding::floor:
            return "floor";
        case CapacityRounding::tutel:
            return "tutel";
        case CapacityRounding::fastmoe:
            return "fastmoe";
        case CapacityRounding::colossalai:
            return "colossalai";
        case CapacityRounding::olmo:
            return "olmo";
    }
    return "";
}

}  // namespace

i64 rows_of_capacity(const CapacitySpec& capacity, i64 tokens, i64 top_k, i64 experts) {
    const double rows = whole_rows(capacity, static_cast<double>(tokens), static_cast<double>(top_k),
                                   static_cast<double>(experts));
    return static_cast<i64>(std::clamp(rows, 1.0, static_cast<double>(std::max<i64>(tokens, 1))));
}

i64 tokens_per_object(const CapacitySpec& capacity, i64 tokens, i64 seq_len) {
    return capacity.per == CapacityScope::sequence ? seq_len : std::max<i64>(tokens, 1);
}

i64 most_rows_of_micro_batch(const ModelSpec& spec) {
    const i64 tokens = tokens_per_object(*spec.capacity, spec.micro_tokens(), spec.seq_len);
    return spec.micro_tokens() / tokens * rows_of_capacity(*spec.capacity, tokens, spec.top_k, spec.experts);
}

Routing keep_within_capacity(StepContext& context, const ModelSpec& spec, i64 seq_len,
                             ConstTensorView probability, const Routing& routing) {
    Backend& backend = context.backend;
    const CapacitySpec& capacity = *spec.capacity;
    const i64 object_tokens = tokens_per_object(capacity, routing.expert.rows(), seq_len);
    const bool by_probability = capacity.policy == DropPolicy::probability;
    const i64 rows = rows_of_capacity(capacity, object_tokens, spec.top_k, spec.experts);
    Routing kept{backend.allocate(routing.expert.shape(), DType::int32),
                 backend.allocate(routing.weight.shape(), routing.weight.dtype()),
                 routing.expert.rows() / object_tokens * rows};
    backend.limit_choices(context.compute, {.index = routing.expert,
                                            .priority = by_probability ? probability : ConstTensorView(),
                                            .experts = spec.experts,
                                            .rows_per_object = object_tokens,
                                            .capacity = rows,
                                            .kept = kept.expert});
    if (capacity.renormalize) {
        backend.rescale_kept(
            context.compute,
            {.weight = routing.weight, .index = routing.expert, .kept = kept.expert, .out = kept.weight});
    } else {
        backend.copy(context.compute, routing.weight, kept.weight);
    }
    return kept;
}

void keep_within_capacity_backward(StepContext& context, const CapacitySpec& capacity, const Routing& routing,
                                   const Routing& kept, TensorView d_weight) {
    if (!capacity.renormalize) return;  // what is dropped has a derivative of 0 already
    context.backend.rescale_kept_backward(context.compute, {.weight = routing.weight,
                                                            .index = routing.expert,
                                                            .kept = kept.expert,
                                                            .d_out = d_weight,
                                                            .d_weight = d_weight});
}

std::string describe_capacity(const ModelSpec& spec) {
    if (!spec.capacity) return "dropless";
    const CapacitySpec& capacity = *spec.capacity;
    const i64 tokens = tokens_per_object(capacity, spec.micro_tokens(), spec.seq_len);
    return fmt::format("{} rows an expert in each {} of {} tokens (factor {}, {}), dropped by {}{}{}",
                       rows_of_capacity(capacity, tokens, spec.top_k, spec.experts),
                       capacity.per == CapacityScope::sequence ? "sequence" : "micro-batch", tokens,
                       capacity.factor, name_of(capacity.rounding),
                       capacity.policy == DropPolicy::position ? "position" : "probability",
                       capacity.renormalize ? ", weights renormalised" : "", capacity.pad ? ", padded" : "");
}

}  // namespace moesaic
