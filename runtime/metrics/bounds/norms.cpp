#include "runtime/metrics/bounds/norms.h"

#include <cmath>
#include <cstddef>
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

/// The product of the other layers' spectral norms. Dividing by a layer's own instead is 0/0 where it is
/// zero.
double spectral_product_without(const std::vector<LayerNorms>& layers, std::size_t left_out) {
    double product = 1;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        if (layer != left_out) product *= layers[layer].spectral;
    }
    return product;
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
    double sum = 0;
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
        sum += std::pow(layers[layer].rows * spectral_product_without(layers, layer), 2.0 / 3);
    return std::pow(sum, 1.5);
}

BoundResult spectral_norm_measure(const NormMeasure& input) {
    return measure(spectral_complexity(input.layers) * input.radius /
                   (input.margin * std::sqrt(input.samples)));
}

BoundResult pac_bayes_norm_measure(const NormMeasure& input) {
    const double depth = static_cast<double>(input.layers.size());
    double sum = 0;
    for (std::size_t layer = 0; layer < input.layers.size(); ++layer) {
        const double norm = input.layers[layer].frobenius * spectral_product_without(input.layers, layer);
        sum += norm * norm;
    }
    const double size = depth * depth * input.width * std::log(depth * input.width);
    return measure(input.radius * std::sqrt(size * sum / input.samples) / input.margin);
}

}  // namespace moesaic
