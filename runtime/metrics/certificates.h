// The two certificates of a run that say something: from data met for the first time, and from held-out data.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
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
inline constexpr std::size_t kCertifiedLosses = 2;
[[nodiscard]] std::span<const CertifiedLoss, kCertifiedLosses> certified_losses();

/// What a PrequentialCertificate takes of one sequence: its units with targets, and of each certified loss in
/// [0, 1] the sum over them and the sum of the squares.
struct UnitSums {
    double units = 0;
    std::array<double, kCertifiedLosses> sum{}, squares{};

    /// A unit without targets does not count.
    void add(const UnitScores& unit, const LossScales& scales);
    bool operator==(const UnitSums&) const = default;
};
/// Of a loss in [0, 1] (LossScales::to_unit) that was `mean` and is at most `upper`, in the loss's own units.
[[nodiscard]] BoundResult in_own_units(UnitLoss loss, const LossScales& scales, double mean, double upper);

struct CertificateOptions {
    LossScales scales;
    double delta = 0.05;
    /// A unit's error is 0 or 1, and no average: then Catoni's and the binomial form speak of it.
    bool exact_errors = false;
    bool text = false;         ///< units are parts of texts
    bool documents = false;    ///< and those are documents
    bool from_scratch = true;  ///< the weights that the run began with had met no data
    bool recorded = true;      ///< what the weights were trained on, from their start
};

/// Fed with the losses of every step's units before the weights see them, while all of them are met for the
/// first time. Pure: the same numbers give the same state, whatever the layout.
class PrequentialCertificate {
  public:
    /// `epoch_units`: units until the first that was met before; delta is divided over the windows up to
    /// there.
    PrequentialCertificate(const CertificateOptions& options, double epoch_units, double units_of_step);

    /// One step's, a member for each sequence of the batch.
    void add(std::span<const UnitSums> sequences);
    /// The same where every sequence is a unit.
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

/// What a statement may fail with. `look`: how often a run has looked at the same units, this time included,
/// from 1; delta/(look (look+1)), so that all looks hold at once with 1 - delta. Without one the statement
/// stands by itself, with all of delta, and shares it with no other.
[[nodiscard]] double delta_of_statement(double delta, std::optional<i64> look);

/// For fixed weights and units that they have never met; may fail with delta_of_statement. `units` are taken
/// in a random order that follows from `seed`. By name: "heldout", "heldout_bits". Empty where no unit has a
/// target or a loss is not finite.
[[nodiscard]] std::map<std::string, BoundResult> heldout_certificates(std::span<const UnitScores> units,
                                                                      const CertificateOptions& options,
                                                                      std::optional<i64> look, u64 seed);

/// The same for documents in the order of the data. A document's loss may depend on those before it, which
/// share its window: then the statement is about the mean over the places of these documents of what a new
/// one would lose there. `reference`: units whose losses tell how much to stake and nothing else, such as
/// training's; they have to be independent of `documents`.
[[nodiscard]] std::map<std::string, BoundResult> document_certificates(std::span<const UnitScores> documents,
                                                                       std::span<const UnitScores> reference,
                                                                       const CertificateOptions& options,
                                                                       std::optional<i64> look);

}  // namespace moesaic
