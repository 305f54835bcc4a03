#include "runtime/metrics/bounds/frozen_features.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "runtime/base/error.h"

namespace moesaic {

BoundResult frozen_features_bound(const FrozenFeatures& input) {
    const double outputs = input.classes > 0 ? std::numbers::sqrt2 : 1;
    BoundTerms terms;
    terms.add("expert", 2 * outputs * input.lipschitz * input.complexity);
    terms.add("confidence", 3 * confidence_term(input.range, 2, input.delta, input.samples));
    BoundResult result = sum_of_terms(std::move(terms), input.range);
    result.assume_independent_samples()
        .assume("features_frozen", AssumptionStatus::unknown,
                "features and router do not depend on the sample (random, hash, or trained on other data)")
        .assume_loss_in_range()
        .assume("norms_a_priori", AssumptionStatus::unknown,
                "the cap of the stacked norm was fixed before the sample was seen");
    return result;
}

double last_layer_complexity(const RoutedFeatures& data, std::span<const double> signs, int outputs,
                             double stacked_norm) {
    const auto width = static_cast<std::size_t>(data.width), top_k = static_cast<std::size_t>(data.top_k);
    const auto columns = static_cast<std::size_t>(outputs);
    const std::size_t samples = data.experts.size() / top_k;
    const std::size_t draws = signs.size() / (samples * columns);
    MOESAIC_ASSERT(data.features.size() == samples * width && draws >= 1, "features {} signs {}",
                   data.features.size(), signs.size());
    std::vector<double> sums(static_cast<std::size_t>(data.expert_count) * columns * width);
    double total = 0;
    for (std::size_t draw = 0; draw < draws; ++draw) {
        std::fill(sums.begin(), sums.end(), 0.0);
        for (std::size_t i = 0; i < samples; ++i) {
            const double* const sign = signs.data() + (draw * samples + i) * columns;
            for (std::size_t choice = i * top_k; choice < (i + 1) * top_k; ++choice) {
                double* const row =
                    sums.data() + static_cast<std::size_t>(data.experts[choice]) * columns * width;
                for (std::size_t column = 0; column < columns; ++column) {
                    const double factor = data.weights[choice] * sign[column];
                    for (std::size_t f = 0; f < width; ++f)
                        row[column * width + f] += factor * data.features[i * width + f];
                }
            }
        }
        double squares = 0;
        for (const double sum : sums) squares += sum * sum;
        total += std::sqrt(squares);
    }
    return stacked_norm * total / (static_cast<double>(samples) * static_cast<double>(draws));
}

double sign_average_tolerance(double output_bound, double samples, double draws, double delta) {
    return output_bound * std::sqrt(2 * std::log(2 / delta) / (samples * draws));
}

}  // namespace moesaic
