// What a unit of data scored, in the losses that statements about unseen data are made of.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

/// A unit is what is drawn independently: a document or a packed sequence of a language model, an example of
/// a classification. Its loss is the mean over its targets that are not masked.
enum class UnitLoss : std::uint8_t {
    raw,            ///< cross-entropy, nats; unbounded: reported, no bound speaks of it
    error,          ///< 0-1: another answer is as likely or likelier
    ramp,           ///< clip(1 - margin/gamma, 0, 1), never below the error
    smoothed_bits,  ///< -log2((1-a) p + a/V) (Lotfi et al., arXiv 2312.17173)
    clipped,        ///< min(cross-entropy, c), nats
};
inline constexpr std::size_t kUnitLosses = 5;
/// What live bounds of the gap are about: bounded, Lipschitz, and never below the error.
inline constexpr UnitLoss kGapBoundLoss = UnitLoss::ramp;
[[nodiscard]] std::string_view name_of(UnitLoss loss);
[[nodiscard]] std::array<UnitLoss, kUnitLosses> all_unit_losses();

/// What makes the losses bounded.
struct LossScales {
    double answers = 2;      ///< V: tokens or classes to choose among
    double smoothing = 0.1;  ///< a, in (0, 1)
    double margin = 1;       ///< gamma, of logits
    double clip = 2;         ///< c, nats
    bool all_right = false;  ///< a unit's error is 1 unless all of its targets are right

    /// The loss lies in [least, least + range]; the raw one's range is infinite.
    [[nodiscard]] double least(UnitLoss loss) const;
    [[nodiscard]] double range(UnitLoss loss) const;
    /// A bounded loss in [0, 1], and back.
    [[nodiscard]] double to_unit(UnitLoss loss, double value) const {
        return (value - least(loss)) / range(loss);
    }
    [[nodiscard]] double from_unit(UnitLoss loss, double share) const {
        return least(loss) + share * range(loss);
    }
};

/// One unit's losses by UnitLoss, and how many targets they are means of; all 0 where every target is masked.
struct UnitScores {
    double targets = 0;
    std::array<double, kUnitLosses> losses{};

    [[nodiscard]] double of(UnitLoss loss) const { return losses[static_cast<std::size_t>(loss)]; }
    bool operator==(const UnitScores&) const = default;
};

/// The targets [first, first + count) of a sequence.
struct TargetRange {
    i64 first = 0, count = 0;
};

/// From each target's cross-entropy in nats and its margin, the right logit minus the largest other, which is
/// infinite where a target is masked (CrossEntropy). Sums in ascending order.
[[nodiscard]] UnitScores score_unit(std::span<const double> cross_entropy, std::span<const double> margin,
                                    const LossScales& scales);

}  // namespace moesaic
