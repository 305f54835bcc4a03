#include "runtime/metrics/snapshot_certificate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "runtime/metrics/bounds/fresh_data.h"
#include "runtime/metrics/bounds/pac_bayes.h"
#include "runtime/metrics/bounds/test_set.h"
#include "runtime/metrics/certificates.h"

namespace moesaic {

namespace {

constexpr std::array kScales{0.003, 0.01, 0.03, 0.1, 0.3};
constexpr std::array kShares{0.0, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0};
constexpr double kMeasuring = 0.1;  // of delta

double mean_of(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

/// Finds the posterior, and keeps what its bounds need.
class Search {
  public:
    Search(const SnapshotOptions& options, const SnapshotLosses& losses)
        : options_(options),
          losses_(losses),
          theorem_delta_((1 - kMeasuring) * options.delta / static_cast<double>(kScales.size())) {}

    SnapshotCertificate run() {
        for (const double scale : kScales) try_scale(scale);
        SnapshotCertificate certificate;
        certificate.posterior = best_;
        certificate.divergence = divergence(best_);
        const auto drawn = losses_(best_, SnapshotPart::certifying, options_.draws);
        for (std::size_t i = 0; i < drawn.size(); ++i)
            add_bounds(certified_losses()[i], drawn[i], i, certificate);
        return certificate;
    }

  private:
    [[nodiscard]] double divergence(const SnapshotPosterior& posterior) const {
        const double moved = posterior.share * posterior.share * options_.squared_distance;
        return gaussian_divergence(moved, posterior.scale);
    }

    [[nodiscard]] PacBayes input(double gibbs_loss, double nats) const {
        return {options_.certifying_units, gibbs_loss, nats, theorem_delta_};
    }

    /// What the theorems want to be fixed beforehand, of one loss.
    struct Fixed {
        double catoni = 1, bernstein = 0.5;  // lambda
        double centre = 0.5;                 // of the losses, as expected
        /// x + (psi/lambda) (x - mu)^2 lies in [0, this].
        [[nodiscard]] double range() const { return 1 + weight(); }
        [[nodiscard]] double weight() const { return bernstein_psi(bernstein) / bernstein; }
        /// Means of it over a handful each.
        [[nodiscard]] std::vector<double> with_deviations(const DrawnLosses& drawn) const {
            std::vector<double> sums;
            for (std::size_t i = 0; i < drawn.mean.size(); ++i) {
                const double mean = drawn.mean[i];
                sums.push_back(
                    mean + weight() * std::max(0.0, drawn.squares[i] - 2 * centre * mean + centre * centre));
            }
            return sums;
        }
    };

    [[nodiscard]] Fixed fix(double mean, double variance) const {
        const double units = options_.certifying_units;
        return {catoni_lambda(mean, units, theorem_delta_), bernstein_lambda(variance, units, theorem_delta_),
                mean};
    }

    /// The value that posteriors are chosen by.
    [[nodiscard]] double value_of(const DrawnLosses& drawn, double nats, const Fixed& fixed) const {
        if (options_.exact_errors) return catoni_bound(input(mean_of(drawn.mean), nats), fixed.catoni).value;
        return bernstein_pac_bayes_bound(input(mean_of(fixed.with_deviations(drawn)), nats), 0,
                                         fixed.bernstein)
            .value;
    }
    [[nodiscard]] double least_value(double nats, const Fixed& fixed) const {
        return options_.exact_errors ? catoni_bound(input(0, nats), fixed.catoni).value
                                     : bernstein_pac_bayes_bound(input(0, nats), 0, fixed.bernstein).value;
    }

    void try_scale(double scale) {
        // What the prior's own draws lose where it learnt; without such units, half and all of [0, 1].
        std::vector<Fixed> fixed(kCertifiedLosses, fix(0.5, 0.25));
        if (options_.prior_met_units) {
            const auto met = losses_({scale, 0}, SnapshotPart::met_by_prior, options_.trial_draws);
            for (std::size_t i = 0; i < met.size(); ++i) {
                const double mean = mean_of(met[i].mean);
                fixed[i] = fix(mean, std::max(0.0, mean_of(met[i].squares) - mean * mean));
            }
        }
        for (const double share : kShares) {
            const SnapshotPosterior posterior{scale, share};
            const double nats = divergence(posterior);
            // Even without a mistake it would be no better.
            if (least_value(nats, fixed.front()) >= best_value_) break;
            const auto drawn = losses_(posterior, SnapshotPart::certifying, options_.trial_draws);
            const double value = value_of(drawn.front(), nats, fixed.front());
            if (value >= best_value_) continue;
            best_value_ = value;
            best_ = posterior;
            fixed_ = fixed;
        }
    }

    void add_bounds(const CertifiedLoss& certified, const DrawnLosses& drawn, std::size_t index,
                    SnapshotCertificate& certificate) const {
        const double measuring = kMeasuring * options_.delta, gibbs = mean_of(drawn.mean);
        const double upper = betting_upper(drawn.mean, measuring);
        const PacBayes of_loss = input(upper, certificate.divergence);
        const auto add = [&](const char* name, const BoundResult& bound, double measured) {
            BoundResult result =
                in_own_units(certified.loss, options_.scales, gibbs, std::min(1.0, bound.value));
            result.assumptions = bound.assumptions;
            result.details.add("units", options_.certifying_units);
            result.details.add("divergence", certificate.divergence);
            result.details.add("noise", certificate.posterior.scale);
            result.details.add("share", certificate.posterior.share);
            result.details.add("measured_at_most", options_.scales.from_unit(certified.loss, measured));
            certificate.bounds.emplace(name + std::string(certified.suffix), std::move(result));
        };
        const Fixed& fixed = fixed_[index];
        add("pac_bayes_catoni", catoni_bound(of_loss, fixed.catoni), upper);
        add("pac_bayes_kl", maurer_bound(of_loss), upper);
        add("pac_bayes_mcallester", mcallester_bound(of_loss), upper);
        // Loss and deviations are measured as one number.
        std::vector<double> sums = fixed.with_deviations(drawn);
        for (double& sum : sums) sum /= fixed.range();
        const double sum = fixed.range() * betting_upper(sums, measuring);
        add("pac_bayes_bernstein",
            bernstein_pac_bayes_bound(input(sum, certificate.divergence), 0, fixed.bernstein), upper);
    }

    const SnapshotOptions& options_;
    const SnapshotLosses& losses_;
    double theorem_delta_;
    double best_value_ = std::numeric_limits<double>::infinity();
    SnapshotPosterior best_{kScales.front(), 0};
    std::vector<Fixed> fixed_{kCertifiedLosses};
};

}  // namespace

void DrawnLosses::add(std::span<const double> losses) {
    double sum = 0, sum_of_squares = 0;
    for (const double loss : losses) {
        sum += loss;
        sum_of_squares += loss * loss;
    }
    const auto count = static_cast<double>(std::max<std::size_t>(losses.size(), 1));
    mean.push_back(sum / count);
    squares.push_back(sum_of_squares / count);
}

std::string_view snapshot_form(const SnapshotOptions& options) {
    return options.exact_errors ? "pac_bayes_catoni" : "pac_bayes_bernstein";
}

SnapshotCertificate certify_snapshot(const SnapshotOptions& options, const SnapshotLosses& losses) {
    return Search(options, losses).run();
}

std::string explain_snapshot(const SnapshotCertificate& certificate, const SnapshotOptions& options) {
    const BoundResult& error = certificate.bounds.at(std::string(snapshot_form(options)));
    const std::string model = fmt::format(
        "the model with normal noise of {:g} times each tensor's size on its weights, {:g} % of the way from "
        "the prior to the trained weights",
        certificate.posterior.scale, 100 * certificate.posterior.share);
    if (error.vacuous)
        return fmt::format(
            "PAC-Bayes says nothing here: for {} the limit of the error is {:.3g} ({:.0f} units that the "
            "prior "
            "had not met, {:.3g} nats from it).",
            model, error.value, options.certifying_units, certificate.divergence);
    return fmt::format(
        "With {:g} % confidence {} is wrong in at most {:.1f} % of its answers on new data; it was in {:.1f} "
        "% "
        "on the {:.0f} units that the prior had not met, {:.3g} nats from the prior.",
        100 * (1 - options.delta), model, 100 * error.value, 100 * error.terms.at("empirical"),
        options.certifying_units, certificate.divergence);
}

}  // namespace moesaic
