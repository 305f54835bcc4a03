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
      waiting_(kTogether * static_cast<std::size_t>(width)),
      sums_(static_cast<std::size_t>(kDraws * columns_ * width), 0.0) {}

double SignSums::sign(i64 unit, i64 place, i64 draw, i64 column) const {
    return sign_of(bits_of(random_, unit, place), draw, column);
}

void SignSums::add(i64 unit, i64 place, double targets, std::span<const float> features) {
    MOESAIC_ASSERT(std::ssize(features) == width_, "{} features, not {}", features.size(), width_);
    const double scale = 1 / std::sqrt(targets);
    std::ranges::transform(features, waiting_.begin() + static_cast<i64>(bits_.size()) * width_,
                           [&](float x) { return scale * static_cast<double>(x); });
    bits_.push_back(bits_of(random_, unit, place));
    if (bits_.size() == kTogether) add_waiting();
}

void SignSums::add_waiting() {
    if (bits_.empty()) return;
    const auto width = static_cast<std::size_t>(width_);
    std::fill(waiting_.begin() + static_cast<i64>(bits_.size() * width), waiting_.end(), 0.0);
    bits_.resize(kTogether);
    // The first target plus or minus each of the others: bit t - 1 of the place says plus.
    constexpr std::size_t kPlaces = std::size_t{1} << (kTogether - 1);
    std::vector<double> combined(kPlaces * width);
    for (std::size_t place = 0; place < kPlaces; ++place) {
        double* const sum = combined.data() + place * width;
        std::copy_n(waiting_.begin(), width, sum);
        for (std::size_t t = 1; t < kTogether; ++t) {
            const double sign = (place >> (t - 1) & 1) != 0 ? 1 : -1;
            for (std::size_t f = 0; f < width; ++f) sum[f] += sign * waiting_[t * width + f];
        }
    }
    std::array<std::array<u32, 4>, kTogether> alike{};  // bits that are those of the first target
    for (std::size_t t = 1; t < kTogether; ++t) {
        for (std::size_t word = 0; word < 4; ++word) alike[t][word] = ~(bits_[t][word] ^ bits_[0][word]);
    }
    double* sum = sums_.data();
    for (i64 draw = 0; draw < kDraws; ++draw) {
        for (i64 column = 0; column < columns_; ++column, sum += width_) {
            const auto index = static_cast<std::size_t>(draw * kColumns + column);
            const double first = sign_of(bits_[0], draw, column);
            std::size_t place = 0;
            for (std::size_t t = 1; t < kTogether; ++t)
                place |= std::size_t{alike[t][index / 32] >> (index % 32) & 1} << (t - 1);
            const double* const of_place = combined.data() + place * width;
            for (std::size_t f = 0; f < width; ++f) sum[f] += first * of_place[f];
        }
    }
    bits_.clear();
}

std::vector<double>& SignSums::sums() {
    add_waiting();
    return sums_;
}

double SignSums::complexity(double norm, double units) {
    add_waiting();
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
