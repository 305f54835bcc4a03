// The two certificates of a run that say something: from data met for the first time, and from held-out data.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/metrics/bounds/bound_result.h"
#include "runtime/metrics/bounds/fresh_data.h"
#include "runtime/metrics/unit_losses.h"

namespace moesaic {

/// Losses that are certified, each with a statement of its own at confidence 1 - delta.
struct CertifiedLoss {
    UnitLoss loss;
    std::string_view suffix;  ///< behind the certificate's name: "prequential", "prequential_bits"
};
[[nodiscard]] std::span<const CertifiedLoss> certified_losses();
/// Of a loss in [0, 1] (LossScales::to_unit) that was `mean` and is at most `upper`, in the loss's own units.
[[nodiscard]] BoundResult in_own_units(UnitLoss loss, const LossScales& scales, double mean, double upper);

struct CertificateOptions {
    LossScales scales;
    double delta = 0.05;
    /// A unit's error is 0 or 1, and no average: then Catoni's and the binomial form speak of it.
    bool exact_errors = false;
    bool from_scratch = true;  ///< the weights that the run began with had met no data
};

/// Fed with the losses of every step's units before the weights see them, while all of them are met for the
/// first time. Pure: the same numbers give the same state, whatever the layout.
class PrequentialCertificate {
  public:
    /// `epoch_units`: units until the first that was met before; delta is divided over the windows up to
    /// there.
    PrequentialCertificate(const CertificateOptions& options, double epoch_units, double units_of_step);

    /// Units without targets do not count.
    void add(std::span<const UnitScores> units);
    [[nodiscard]] double units() const { return units_; }
    /// By name, from the first window on: "prequential", "prequential_bits", in the losses' own units.
    [[nodiscard]] std::map<std::string, BoundResult> bounds() const;

    /// Everything that it remembers, as numbers.
    [[nodiscard]] std::vector<double> state() const;
    /// False, and nothing changes, where the numbers are not a state of this kind.
    [[nodiscard]] bool restore(std::span<const double> numbers);

  private:
    CertificateOptions options_;
    double units_ = 0;
    std::vector<std::unique_ptr<FreshDataCertificate>> losses_;  // as certified_losses()
};

/// For fixed weights and units that they have never met. `look`: how often the same units were looked at,
/// this time included; it may fail with delta/(look (look+1)). `units` are taken in a random order that
/// follows from `seed`. By name: "heldout", "heldout_bits". Empty where no unit has a target or a loss is not
/// finite.
[[nodiscard]] std::map<std::string, BoundResult> heldout_certificates(std::span<const UnitScores> units,
                                                                      const CertificateOptions& options,
                                                                      double look, u64 seed);

}  // namespace moesaic
