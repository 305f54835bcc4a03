#include "runtime/metrics/sign_sums.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// 128 signs as bits, for 16 draws of 8 columns.
std::array<u32, 4> bits_of(const Philox& random, i64 unit, i64 place) {
    const auto number = static_cast<u64>(unit);
    return random.block(
        {static_cast<u32>(place), static_cast<u32>(number), static_cast<u32>(number >> 32), 0});
}

double sign_of(const std::array<u32, 4>& bits, i64 draw, i64 column) {
    const i64 index = draw * SignSums::kColumns + column;
    return (bits[static_cast<std::size_t>(index / 32)] >> (index % 32) & 1) != 0 ? 1 : -1;
}

}  // namespace

SignSums::SignSums(i64 width, i64 outputs, u64 seed)
    : width_(width),
      outputs_(outputs),
      columns_(std::min(outputs, kColumns)),
      random_(seed, "Rademacher signs"),
      sums_(static_cast<std::size_t>(kDraws * columns_ * width), 0.0) {}

double SignSums::sign(i64 unit, i64 place, i64 draw, i64 column) const {
    return sign_of(bits_of(random_, unit, place), draw, column);
}

void SignSums::add(i64 unit, i64 place, double targets, std::span<const float> features) {
    MOESAIC_ASSERT(std::ssize(features) == width_, "{} features, not {}", features.size(), width_);
    const std::array<u32, 4> bits = bits_of(random_, unit, place);
    const double scale = 1 / std::sqrt(targets);
    double* sum = sums_.data();
    for (i64 draw = 0; draw < kDraws; ++draw) {
        for (i64 column = 0; column < columns_; ++column, sum += width_) {
            const double factor = scale * sign_of(bits, draw, column);
            for (i64 f = 0; f < width_; ++f)
                sum[f] += factor * static_cast<double>(features[static_cast<std::size_t>(f)]);
        }
    }
}

double SignSums::complexity(double norm, double units) const {
    const auto size = static_cast<std::size_t>(columns_ * width_);
    const double alike = static_cast<double>(outputs_) / static_cast<double>(columns_);
    double total = 0;
    for (std::size_t draw = 0; draw < static_cast<std::size_t>(kDraws); ++draw) {
        double squares = 0;
        for (std::size_t i = draw * size; i < (draw + 1) * size; ++i) squares += sums_[i] * sums_[i];
        total += std::sqrt(alike * squares);
    }
    return norm * total / (units * static_cast<double>(kDraws));
}

}  // namespace moesaic
