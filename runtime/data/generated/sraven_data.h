// SRAVEN: symbolic Raven matrices, drawn by number (Schug et al., "Attention as a hypernetwork", arXiv
// 2406.05816, section 4; generator of its public code).
#pragma once

#include <array>

#include "runtime/base/philox.h"
#include "runtime/data/generated/rule_combinations.h"
#include "runtime/data/task_data.h"

namespace moesaic {

/// A feature's values in the 3 x 3 panels of a matrix, row by row.
using FeatureGrid = std::array<std::array<int, 3>, 3>;

class InstanceDraws;

inline constexpr int kRavenRules = 8;
/// Rule 0: one value a row. 1 to 4: a progression along each row by +1, +2, -1, -2. 5: third = first +
/// second. 6: third = first - second. 7: three distinct values, in every row in an order of its own. All
/// modulo `values`.
[[nodiscard]] FeatureGrid draw_feature(int rule, int values, InstanceDraws& draws);

struct SravenOptions {
    int features = 4;  ///< M of a panel, each with a rule of its own
    int values = 8;    ///< F
    double held_out = 0.25;
    i64 samples = 20'000'000;  ///< training instances; then they come again
    i64 test = 1024;           ///< of seen combinations, and as many of held-out ones
    u64 seed = 1;
};

/// An instance draws a combination of M rules uniformly from its split's list, a grid for each feature, and
/// for each column one order of the features, the same for all rows. Its tokens are the features of the first
/// eight panels, row by row, then M blanks (id F), whose targets are the features of the ninth. Training,
/// test and held-out instances come from three unrelated streams. Held-out combinations are the shifted
/// samples.
class SravenData final : public TaskData {
  public:
    /// Throws UserError where features * rules make no split (see split_combinations).
    explicit SravenData(const SravenOptions& options);

    [[nodiscard]] SampleShape shape() const override;
    [[nodiscard]] i64 training_windows() const override { return options_.samples; }
    [[nodiscard]] i64 validation_windows() const override { return options_.test; }
    [[nodiscard]] i64 shifted_windows() const override;
    [[nodiscard]] i64 training_sequence(u64 seed, i64 number) const override;
    void training_window(i64 index, WindowBuffer out) const override;
    void validation_window(i64 index, WindowBuffer out) const override;
    [[nodiscard]] SampleError error() const override { return SampleError::any_wrong; }
    [[nodiscard]] std::string unit() const override;
    [[nodiscard]] std::string loss_unit() const override { return "nats/feature"; }
    [[nodiscard]] std::string fingerprint() const override;
    [[nodiscard]] std::vector<std::string> files() const override;

    [[nodiscard]] const RuleCombinations& combinations() const { return combinations_; }

  private:
    void write(const std::vector<std::vector<int>>& rules, const Philox& stream, i64 index,
               WindowBuffer out) const;

    SravenOptions options_;
    RuleCombinations combinations_;
    Philox training_, test_, held_out_;
};

}  // namespace moesaic
