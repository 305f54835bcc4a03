// Empirical Rademacher complexity of a linear last layer on the features that it reads, by random signs.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/base/types.h"

namespace moesaic {

/// Sums over targets of sign * feature, for 16 draws of up to 8 columns of signs. A target's signs are a
/// function of (seed, unit, place in it), so that ranks may share out the units and add up their sums.
class SignSums {
  public:
    static constexpr i64 kDraws = 16, kColumns = 8;

    /// Of features [width]; `outputs` K - 1 for K classes, whose columns of signs beyond kColumns are alike
    /// and not drawn.
    SignSums(i64 width, i64 outputs, u64 seed);

    /// One target of `unit`, whose loss is the mean over `targets` of them.
    void add(i64 unit, i64 place, double targets, std::span<const float> features);
    /// [draws, columns, width]; of several ranks they may be added up.
    [[nodiscard]] std::vector<double>& sums();
    /// (norm/n) E ||sum_it s_it phi_it^T / sqrt(l_i)||_F, n `units`, l_i the targets of unit i, s in
    /// {-1,1}^(K-1): what the mean over a unit of a loss that is L-Lipschitz in the logits adds to 2 sqrt2 L
    /// times it is by Maurer's contraction of the unit's logits together, whose Lipschitz constant is
    /// L/sqrt(l_i). For single targets that of theorem 2 with one expert (bounds/README.md).
    [[nodiscard]] double complexity(double norm, double units);
    /// A sign as an add of (unit, place) uses it.
    [[nodiscard]] double sign(i64 unit, i64 place, i64 draw, i64 column) const;

  private:
    /// Targets are added four at a time: the 128 draws and columns share eight sums of theirs.
    static constexpr std::size_t kTogether = 4;
    void add_waiting();

    i64 width_, outputs_, columns_;
    Philox random_;
    std::vector<double> waiting_;           // features of targets, scaled [kTogether, width]
    std::vector<std::array<u32, 4>> bits_;  // of those that wait
    std::vector<double> sums_;
};

}  // namespace moesaic
