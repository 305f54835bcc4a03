#include "launch/bench/layer_problem.h"

#include <algorithm>
#include <cmath>

#include "comm/traffic/traffic.h"
#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

ModelSpec spec_of(const LayerOptions& options, int ranks) {
    ModelSpec spec;
    spec.layers = 1;
    spec.width = options.width;
    spec.hidden = options.hidden;
    spec.experts = options.routing.experts;
    spec.top_k = options.routing.top_k;
    spec.init_std = 1 / std::sqrt(static_cast<double>(options.width));
    spec.router.normalize = options.routing.top_k > 1;
    spec.balance.aux = spec.balance.z = 0;
    spec.seq_len = 1;
    spec.micro_sequences = options.routing.tokens;
    spec.receive_budget = ranks;  // one round, whatever the traffic
    return spec;
}

std::vector<i32> draw_choices(const LayerOptions& options, int ranks) {
    const i64 tokens = options.routing.tokens * ranks;
    const auto traffic = make_traffic(
        options.routing.traffic,
        {options.routing.experts, options.routing.top_k, ranks, options.routing.tokens, kBenchSeed});
    std::vector<i32> choices(static_cast<std::size_t>(tokens * options.routing.top_k));
    traffic->route(1, 0, 0, tokens, choices);
    return choices;
}

}  // namespace

LayerProblem::LayerProblem(const LayerOptions& options, int ranks)
    : spec_(spec_of(options, ranks)),
      tokens_(options.routing.tokens),
      ranks_(ranks),
      x_(kBenchSeed, "x"),
      dy_(kBenchSeed, "dy"),
      choices_(draw_choices(options, ranks)) {}

double LayerProblem::x(i64 token, i64 column) const {
    const double noise = x_.normal(static_cast<u64>(token * spec_.width + column));
    if (column >= spec_.experts) return noise;
    for (i64 k = 0; k < spec_.top_k; ++k) {
        if (choices_of(token)[k] == column) return 1 + 0.25 * static_cast<double>(spec_.top_k - k);
    }
    return 0.1 * std::clamp(noise, -4.0, 4.0);
}

double LayerProblem::dy(i64 token, i64 column) const {
    return dy_.normal(static_cast<u64>(token * spec_.width + column));
}

std::vector<double> initial_values(const LayerProblem& problem, const std::string& name, DType dtype) {
    const Philox random(kBenchSeed, name);
    std::vector<double> values(static_cast<std::size_t>(problem.spec().width * problem.spec().hidden));
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = problem.spec().init_std * random.normal(i);
        values[i] = rounded_to(dtype, values[i]);
    }
    return values;
}

}  // namespace moesaic
