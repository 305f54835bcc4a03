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
    for (std::size_t i = 0; i < margin.size(); ++i) {
        if (std::isinf(margin[i]) && margin[i] > 0) continue;
        ++unit.targets;
        add(UnitLoss::raw, cross_entropy[i]);
        add(UnitLoss::error, margin[i] >= 0 ? 0 : 1);
        add(UnitLoss::ramp, std::clamp(1 - margin[i] / scales.margin, 0.0, 1.0));
        add(UnitLoss::smoothed_bits,
            smoothed_bits(std::exp(-cross_entropy[i]), scales.smoothing, scales.answers));
        add(UnitLoss::clipped, std::min(cross_entropy[i], scales.clip));
    }
    if (unit.targets == 0) return unit;
    for (double& loss : unit.losses) loss /= unit.targets;
    double& error = unit.losses[static_cast<std::size_t>(UnitLoss::error)];
    if (scales.all_right) error = error > 0 ? 1 : 0;
    return unit;
}

}  // namespace moesaic
