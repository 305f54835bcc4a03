#include "launch/head_complexity.h"

#include <algorithm>
#include <cmath>

#include "launch/batch_windows.h"
#include "launch/generalization.h"
#include "launch/micro_batches.h"
#include "runtime/bfloat16.h"
#include "runtime/metrics/sign_sums.h"

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

std::optional<double> head_complexity(RankRuntime& runtime, const RunSetup& run,
                                      const std::vector<i64>& windows) {
    const ModelSpec& spec = run.spec;
    if (!why_training_forward_differs(spec).empty() || !spec.residual || windows.empty()) return {};
    Communicator& world = runtime.mesh->world();
    const i64 units = std::min(std::ssize(windows), std::max(kFewestUnits, kTokens / spec.seq_len));
    const MicroBatches batches{units, run.config.train.micro_sequences, world.size()};
    BatchWindows batch(*runtime.backend, *runtime.mesh, spec, runtime.store.dtype(), batches.size,
                       run.config.task.data.document_mask);
    const SampleShape shape = run.dataset->shape();
    StepContext context = runtime.context(Phase::train, 0);
    SignSums signs(spec.width, spec.head_outputs() - 1, static_cast<u64>(run.config.run.seed));
    for (i64 i = 0; i < batches.micro_steps(); ++i) {
        const MicroBatches::Part part = batches.part(i, world.rank());
        for (i64 s = 0; s < part.count; ++s)
            run.dataset->training_window(windows[static_cast<std::size_t>(part.first + s)],
                                         batch.host().from(s, shape));
        ModelSaved saved;
        const ForwardResult result =
            runtime.model.forward(context, batch.load(part.count, part.first), saved);
        const std::vector<float> features = host_floats(runtime, saved.normed);
        const auto* const margins = result.token_margin.as<double>();
        for (i64 row = 0; row < part.count * spec.seq_len; ++row) {
            const i64 s = row / spec.seq_len;
            if (std::isinf(margins[row]) && margins[row] > 0) continue;  // masked
            signs.add(windows[static_cast<std::size_t>(part.first + s)], row % spec.seq_len,
                      static_cast<double>(batch.targets(s)),
                      std::span(features).subspan(static_cast<std::size_t>(row * spec.width),
                                                  static_cast<std::size_t>(spec.width)));
        }
    }
    world.all_reduce(*runtime.exchange, view_of(signs.sums().data(), {std::ssize(signs.sums())}),
                     ReduceOp::sum, {"signs of the head's features"});
    runtime.exchange->synchronize();
    return signs.complexity(norm_of_head(runtime), static_cast<double>(units));
}

}  // namespace moesaic
