// SRAVEN: symbolic Raven matrices, drawn by number (Schug et al., "Attention as a hypernetwork", arXiv
// 2406.05816, section 4; generator of its public code).
#pragma once

#include <array>

#include "runtime/data/generated/instance_data.h"

namespace moesaic {

/// A feature's values in the 3 x 3 panels of a matrix, row by row.
using FeatureGrid = std::array<std::array<int, 3>, 3>;

inline constexpr int kRavenRules = 8;
/// Rule 0: one value a row. 1 to 4: a progression along each row by +1, +2, -1, -2. 5: third = first +
/// second. 6: third = first - second. 7: three distinct values, in every row in an order of its own. All
/// modulo `values`.
[[nodiscard]] FeatureGrid draw_feature(int rule, int values, InstanceDraws& draws);

struct SravenOptions : InstanceOptions {
    int features = 4;  ///< M of a panel, each with a rule of its own
    int values = 8;    ///< F
};

/// An instance draws a combination of M rules, a grid for each feature, and for each column one order of the
/// features, the same for all rows. Its tokens are the features of the first eight panels, row by row, then M
/// blanks (id F), whose targets are the features of the ninth.
class SravenData final : public InstanceData {
  public:
    /// Throws UserError where features * rules make no split (see split_combinations).
    explicit SravenData(const SravenOptions& options);

    [[nodiscard]] SampleShape shape() const override;
    [[nodiscard]] std::string unit() const override;
    [[nodiscard]] std::string loss_unit() const override { return "nats/feature"; }
    [[nodiscard]] std::vector<std::string> files() const override;

  private:
    void write(const std::vector<int>& rules, InstanceDraws& draws, WindowBuffer out) const override;

    SravenOptions options_;
};

}  // namespace moesaic
