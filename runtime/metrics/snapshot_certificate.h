// PAC-Bayes from a snapshot: a model with Gaussian weights around a trained one, certified on the training
// data that an earlier snapshot of it, the prior, had not met.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/metrics/bounds/bound_result.h"
#include "runtime/metrics/unit_losses.h"

namespace moesaic {

/// Weights are drawn from N(w0 + share (w - w0), (scale s)^2), w0 the prior's and w the trained ones, s each
/// tensor's own unit; the prior draws from N(w0, (scale s)^2).
struct SnapshotPosterior {
    double scale = 0, share = 0;
    bool operator==(const SnapshotPosterior&) const = default;
};

/// The units that the prior's weights had met, or those that they had not.
enum class SnapshotPart { met_by_prior, certifying };

struct SnapshotOptions {
    LossScales scales;
    double delta = 0.05;
    double certifying_units = 1;
    double squared_distance = 0;  ///< sum over weights of ((w - w0)/s)^2
    bool prior_met_units = true;  ///< false: the prior had met no data
    /// A unit's error is 0 or 1, and no average: Catoni's form is for such, Bernstein's for averages.
    bool exact_errors = false;
    i64 draws = 500;      ///< of weights, for the loss of the chosen posterior
    i64 trial_draws = 8;  ///< for each that is tried
};

/// A loss in [0, 1] of models drawn independently: by model the mean over a handful of units that are drawn
/// at random, with replacement, and the mean of the squares.
struct DrawnLosses {
    std::vector<double> mean, squares;
    /// A handful of units' losses, of one more model.
    void add(std::span<const double> losses);
};
/// Of `draws` models and units of a part, by certified_losses(). Never the same draws twice.
using SnapshotLosses =
    std::function<std::vector<DrawnLosses>(const SnapshotPosterior& posterior, SnapshotPart part, i64 draws)>;

struct SnapshotCertificate {
    SnapshotPosterior posterior;
    double divergence = 0;  ///< KL of the posterior from the prior, nats
    /// By name: "pac_bayes_bernstein", "pac_bayes_catoni", "pac_bayes_kl", "pac_bayes_mcallester", each also
    /// with
    /// "_bits".
    std::map<std::string, BoundResult> bounds;
};

/// Chooses scale and share from a grid by trials, measures the chosen posterior's loss and certifies it. With
/// probability 1 - delta or more, for each name: of delta a tenth pays for the measurement (betting_upper
/// over the draws), the rest for the theorem, divided by the grid's scales; shares are free, as the theorem
/// speaks of all posteriors at once. lambda, and the centre of Bernstein's form, come from units that the
/// prior had met.
[[nodiscard]] SnapshotCertificate certify_snapshot(const SnapshotOptions& options,
                                                   const SnapshotLosses& losses);

/// The form that the posterior is chosen by and that people are told: known before anything is measured.
[[nodiscard]] std::string_view snapshot_form(const SnapshotOptions& options);

/// One sentence for people; 1 - delta is the confidence.
[[nodiscard]] std::string explain_snapshot(const SnapshotCertificate& certificate,
                                           const SnapshotOptions& options);

}  // namespace moesaic
