#include "launch/bench/layer_problem.h"

#include <algorithm>
#include <charconv>
#include <cmath>

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

/// Draws K different experts by their probabilities for every token.
std::vector<i32> draw_choices(const LayerOptions& options, i64 tokens) {
    const Philox random(kBenchSeed, "choices");
    const double skew = parse_skew(options.routing.traffic).value();
    std::vector<i32> choices;
    std::vector<double> probability(static_cast<std::size_t>(options.routing.experts));
    u64 counter = 0;
    for (i64 token = 0; token < tokens; ++token) {
        for (std::size_t e = 0; e < probability.size(); ++e)
            probability[e] = std::pow(static_cast<double>(e + 1), -skew);
        for (i64 k = 0; k < options.routing.top_k; ++k) {
            double sum = 0;
            for (const double one : probability) sum += one;
            double left = random.uniform(counter++) * sum;
            std::size_t expert = probability.size();
            for (std::size_t e = 0; e < probability.size() && (left >= 0 || expert == probability.size());
                 ++e) {
                if (probability[e] == 0) continue;
                expert = e;
                left -= probability[e];
            }
            choices.push_back(static_cast<i32>(expert));
            probability[expert] = 0;
        }
    }
    return choices;
}

}  // namespace

std::optional<double> parse_skew(const std::string& traffic) {
    if (traffic == "uniform") return 0.0;
    constexpr std::string_view kZipf = "zipf:";
    if (!traffic.starts_with(kZipf)) return {};
    double skew = 0;
    const char* const end = traffic.data() + traffic.size();
    const auto [rest, error] = std::from_chars(traffic.data() + kZipf.size(), end, skew);
    if (error != std::errc() || rest != end || !(skew >= 0 && skew <= 20)) return {};
    return skew;
}

LayerProblem::LayerProblem(const LayerOptions& options, int ranks)
    : spec_(spec_of(options, ranks)),
      tokens_(options.routing.tokens),
      ranks_(ranks),
      x_(kBenchSeed, "x"),
      dy_(kBenchSeed, "dy"),
      choices_(draw_choices(options, options.routing.tokens * ranks)) {}

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
        if (dtype == DType::f32) values[i] = static_cast<float>(values[i]);
    }
    return values;
}

}  // namespace moesaic
