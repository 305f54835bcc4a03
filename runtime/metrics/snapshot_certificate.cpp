#include "runtime/metrics/snapshot_certificate.h"

#include <fmt/format.h>

#include <array>
#include <limits>

#include "runtime/metrics/bounds/fresh_data.h"
#include "runtime/metrics/bounds/pac_bayes.h"
#include "runtime/metrics/bounds/test_set.h"
#include "runtime/metrics/certificates.h"

namespace moesaic {

namespace {

constexpr std::array kScales{0.003, 0.01, 0.03, 0.1, 0.3};
constexpr std::array kShares{0.0, 0.25, 0.5, 0.75, 1.0};
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

    void try_scale(double scale) {
        // What the prior's own draws lose where it learnt; without such units, half.
        std::vector<double> lambdas(certified_losses().size(),
                                    catoni_lambda(0.5, options_.certifying_units, theorem_delta_));
        if (options_.prior_met_units) {
            const auto met = losses_({scale, 0}, SnapshotPart::met_by_prior, options_.trial_draws);
            for (std::size_t i = 0; i < met.size(); ++i)
                lambdas[i] = catoni_lambda(mean_of(met[i]), options_.certifying_units, theorem_delta_);
        }
        for (const double share : kShares) {
            const SnapshotPosterior posterior{scale, share};
            const double nats = divergence(posterior);
            // Even without a mistake it would be no better.
            if (catoni_bound(input(0, nats), lambdas.front()).value >= best_value_) break;
            const auto drawn = losses_(posterior, SnapshotPart::certifying, options_.trial_draws);
            const double value = catoni_bound(input(mean_of(drawn.front()), nats), lambdas.front()).value;
            if (value >= best_value_) continue;
            best_value_ = value;
            best_ = posterior;
            lambdas_ = lambdas;
        }
    }

    void add_bounds(const CertifiedLoss& certified, const std::vector<double>& drawn, std::size_t index,
                    SnapshotCertificate& certificate) const {
        const double gibbs = mean_of(drawn), upper = betting_upper(drawn, kMeasuring * options_.delta);
        const PacBayes of_loss = input(upper, certificate.divergence);
        const auto add = [&](const char* name, const BoundResult& bound) {
            BoundResult result =
                in_own_units(certified.loss, options_.scales, gibbs, std::min(1.0, bound.value));
            result.assumptions = bound.assumptions;
            result.details.add("units", options_.certifying_units);
            result.details.add("divergence", certificate.divergence);
            result.details.add("noise", certificate.posterior.scale);
            result.details.add("share", certificate.posterior.share);
            result.details.add("measured_at_most", options_.scales.from_unit(certified.loss, upper));
            certificate.bounds.emplace(name + std::string(certified.suffix), std::move(result));
        };
        add("pac_bayes_catoni", catoni_bound(of_loss, lambdas_[index]));
        add("pac_bayes_kl", maurer_bound(of_loss));
        add("pac_bayes_mcallester", mcallester_bound(of_loss));
    }

    const SnapshotOptions& options_;
    const SnapshotLosses& losses_;
    double theorem_delta_;
    double best_value_ = std::numeric_limits<double>::infinity();
    SnapshotPosterior best_{kScales.front(), 0};
    std::vector<double> lambdas_;
};

}  // namespace

SnapshotCertificate certify_snapshot(const SnapshotOptions& options, const SnapshotLosses& losses) {
    return Search(options, losses).run();
}

std::string explain_snapshot(const SnapshotCertificate& certificate, const SnapshotOptions& options) {
    const BoundResult& error = certificate.bounds.at("pac_bayes_catoni");
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
