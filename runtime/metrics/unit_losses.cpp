#include "runtime/metrics/unit_losses.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/compression.h"

namespace moesaic {

namespace {

constexpr std::array<std::string_view, kUnitLosses> kNames{"raw", "error", "ramp", "smoothed_bits",
                                                           "clipped"};

/// The sum of smoothed_bits: every step asks for it, and a logarithm costs as much as all else of a target.
class SmoothedBits {
  public:
    explicit SmoothedBits(const LossScales& scales)
        : kept_(1 - scales.smoothing), least_(scales.smoothing / scales.answers) {}
    void add(double cross_entropy) {
        product_ *= kept_ * std::exp(-cross_entropy) + least_;
        if (++factors_ == kFactors) take_logarithm();
    }
    double finish() {
        take_logarithm();
        return sum_;
    }

  private:
    static constexpr int kFactors = 8;  // each 1e-6/2^31 or more: far from the least double
    void take_logarithm() {
        sum_ -= std::log2(product_);
        product_ = 1;
        factors_ = 0;
    }

    double kept_, least_, product_ = 1, sum_ = 0;
    int factors_ = 0;
};

}  // namespace

std::string_view name_of(UnitLoss loss) {
    return kNames[static_cast<std::size_t>(loss)];
}

std::array<UnitLoss, kUnitLosses> all_unit_losses() {
    return {UnitLoss::raw, UnitLoss::error, UnitLoss::ramp, UnitLoss::smoothed_bits, UnitLoss::clipped};
}

double LossScales::least(UnitLoss loss) const {
    return loss == UnitLoss::smoothed_bits ? smoothed_bits(1, smoothing, answers) : 0;
}

double LossScales::range(UnitLoss loss) const {
    switch (loss) {
        case UnitLoss::raw:
            return std::numeric_limits<double>::infinity();
        case UnitLoss::smoothed_bits:
            return smoothed_range(smoothing, answers);
        case UnitLoss::clipped:
            return clip;
        case UnitLoss::error:
        case UnitLoss::ramp:
            break;
    }
    return 1;
}

UnitScores score_unit(std::span<const double> cross_entropy, std::span<const double> margin,
                      const LossScales& scales) {
    MOESAIC_ASSERT(cross_entropy.size() == margin.size(), "{} losses, {} margins", cross_entropy.size(),
                   margin.size());
    UnitScores unit;
    const auto add = [&unit](UnitLoss loss, double value) {
        unit.losses[static_cast<std::size_t>(loss)] += value;
    };
    SmoothedBits bits(scales);
    for (std::size_t i = 0; i < margin.size(); ++i) {
        if (std::isinf(margin[i]) && margin[i] > 0) continue;
        ++unit.targets;
        add(UnitLoss::raw, cross_entropy[i]);
        add(UnitLoss::error, margin[i] > 0 ? 0 : 1);
        add(UnitLoss::ramp, std::clamp(1 - margin[i] / scales.margin, 0.0, 1.0));
        bits.add(cross_entropy[i]);
        add(UnitLoss::clipped, std::min(cross_entropy[i], scales.clip));
    }
    if (unit.targets == 0) return unit;
    add(UnitLoss::smoothed_bits, bits.finish());
    for (double& loss : unit.losses) loss /= unit.targets;
    double& error = unit.losses[static_cast<std::size_t>(UnitLoss::error)];
    if (scales.all_right) error = error > 0 ? 1 : 0;
    return unit;
}

}  // namespace moesaic
