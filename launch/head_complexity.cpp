#include "launch/head_complexity.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

constexpr i64 kTokens = 4096, kFewestUnits = 8;  // enough: the norm of a sum of signs hardly varies

/// Copied to the host and widened or rounded to f32.
std::vector<float> host_floats(RankRuntime& runtime, ConstTensorView value) {
    const auto copied = [&](auto element) {
        std::vector<decltype(element)> values(static_cast<std::size_t>(value.elements()));
        if (!values.empty())
            runtime.backend->copy(*runtime.compute, value, view_of(values.data(), value.shape));
        runtime.compute->synchronize();
        return values;
    };
    if (value.dtype == DType::f32) return copied(0.0F);
    std::vector<float> floats;
    if (value.dtype == DType::f64) {
        for (const double one : copied(0.0)) floats.push_back(static_cast<float>(one));
    } else {
        for (const BFloat16 one : copied(BFloat16{})) floats.push_back(static_cast<float>(widened(one)));
    }
    return floats;
}

double norm_of_head(RankRuntime& runtime) {
    const ParameterStore& store = runtime.store;
    const Parameter *head = nullptr, *embedding = nullptr;
    for (const Parameter& parameter : store.parameters()) {
        if (parameter.name == "lm_head.weight") head = &parameter;
        if (parameter.name == "model.embed_tokens.weight") embedding = &parameter;
    }
    const Parameter* const matrix = head != nullptr ? head : embedding;  // tied
    MOESAIC_ASSERT(matrix != nullptr, "{} parameters, none of them the head's", store.parameters().size());
    double squares = 0;
    for (const double weight : host_floats(runtime, matrix->value)) squares += weight * weight;
    return std::sqrt(squares);
}

}  // namespace

HeadComplexity::HeadComplexity(RankRuntime& runtime, const RunSetup& run, const std::vector<i64>& windows)
    : runtime_(runtime),
      spec_(run.spec),
      windows_(windows),
      units_(std::min(std::ssize(windows), std::max(kFewestUnits, kTokens / run.spec.seq_len))),
      signs_(run.spec.width, run.spec.head_outputs() - 1, static_cast<u64>(run.config.run.seed)) {}

bool HeadComplexity::applies(const ModelSpec& spec) {
    return spec.loss == LossKind::cross_entropy && spec.kind != ModelKind::momlp && spec.residual;
}

void HeadComplexity::add(const MicroBatches::Part& part, const BatchWindows& batch,
                         const ForwardResult& result, ConstTensorView features) {
    const i64 count = std::min(part.count, units_ - part.first);
    if (count <= 0) return;
    const i64 width = spec_.width, seq_len = spec_.seq_len;
    const std::vector<float> values = host_floats(runtime_, features);
    const auto* const margins = result.token_margin.as<double>();
    for (i64 row = 0; row < count * seq_len; ++row) {
        const i64 s = row / seq_len;
        if (std::isinf(margins[row]) && margins[row] > 0) continue;  // masked
        signs_.add(windows_[static_cast<std::size_t>(part.first + s)], row % seq_len,
                   static_cast<double>(batch.targets(s)),
                   std::span(values).subspan(static_cast<std::size_t>(row * width),
                                             static_cast<std::size_t>(width)));
    }
}

double HeadComplexity::finish() {
    runtime_.mesh->world().all_reduce(*runtime_.exchange,
                                      view_of(signs_.sums().data(), {std::ssize(signs_.sums())}),
                                      ReduceOp::sum, {"signs of the head's features"});
    runtime_.exchange->synchronize();
    return signs_.complexity(norm_of_head(runtime_), static_cast<double>(units_));
}

}  // namespace moesaic
