#include "runtime/metrics/bounds/norms.h"

#include <cmath>
#include <numbers>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

namespace {

BoundResult measure(double value) {
    BoundResult result;
    result.value = value;
    result.vacuous = !(value < 1);  // no loss in [0, 1] has a larger gap
    result.assume("certificate", AssumptionStatus::violated,
                  "the number bounds the gap: no, constants and logarithms are left out; compare runs by it");
    return result;
}

}  // namespace

double linear_rademacher(double norm, double radius, double samples) {
    return norm * radius / std::sqrt(samples);
}

double golowich_rademacher(double product_norm, double layers, double radius, double samples) {
    return linear_rademacher(product_norm, radius, samples) * (std::sqrt(2 * std::numbers::ln2 * layers) + 1);
}

double constant_rademacher(double samples) {
    MOESAIC_ASSERT(samples >= 1, "samples {}", samples);
    // E|S_m| = 2h C(2h, h) / 4^h, h = ceil(m/2): odd m and m + 1 share it. C/4^h by Stirling: the powers
    // would cancel.
    const double half = std::ceil(samples / 2);
    const double central =
        std::exp(stirling_error(2 * half) - 2 * stirling_error(half)) / std::sqrt(std::numbers::pi * half);
    return 2 * half * central / samples;
}

double spectral_complexity(const std::vector<LayerNorms>& layers) {
    double product = 1, sum = 0;
    for (const LayerNorms& layer : layers) {
        product *= layer.spectral;
        sum += std::pow(layer.rows / layer.spectral, 2.0 / 3);
    }
    return product * std::pow(sum, 1.5);
}

BoundResult spectral_norm_measure(const NormMeasure& input) {
    return measure(spectral_complexity(input.layers) * input.radius /
                   (input.margin * std::sqrt(input.samples)));
}

BoundResult pac_bayes_norm_measure(const NormMeasure& input) {
    const double depth = static_cast<double>(input.layers.size());
    double product = 1, sum = 0;
    for (const LayerNorms& layer : input.layers) {
        product *= layer.spectral * layer.spectral;
        sum += layer.frobenius * layer.frobenius / (layer.spectral * layer.spectral);
    }
    const double size = depth * depth * input.width * std::log(depth * input.width);
    return measure(input.radius * std::sqrt(size * product * sum / input.samples) / input.margin);
}

}  // namespace moesaic
