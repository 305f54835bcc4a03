#include "runtime/metrics/bounds/pac_bayes.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/fresh_data.h"

namespace moesaic {

namespace {

/// (KL + ln(2 sqrt(n)/delta))/n
double maurer_nats(double divergence, double samples, double delta) {
    return (divergence + std::log(2 * std::sqrt(samples) / delta)) / samples;
}

BoundResult with_prior_assumptions(BoundResult result) {
    result.assume_independent_samples()
        .assume(
            "prior_independent", AssumptionStatus::unknown,
            "the prior was fixed without the certifying examples (a start value, a downloaded checkpoint, "
            "or a model trained on other examples)")
        .assume(
            "randomised_model", AssumptionStatus::unknown,
            "the statement is about the model with weights drawn from the posterior, and the loss is that "
            "model's");
    return result;
}

double private_gate_nats(const PrivateGate& input) {
    return maurer_nats(std::log(input.experts) - input.gate_entropy + input.divergence, input.samples,
                       input.delta);
}

BoundResult private_gate_result(const PrivateGate& input, double value) {
    BoundResult result = with_prior_assumptions(risk_bound(input.gibbs_loss, value, 1));
    result.assume(
        "private_gate", AssumptionStatus::unknown,
        "one expert is drawn per example, and no input changes its chance by more than exp(epsilon); "
        "top-k routing has no finite epsilon");
    return result;
}

}  // namespace

BoundResult maurer_bound(const PacBayes& input) {
    const double nats = maurer_nats(input.divergence, input.samples, input.delta);
    return with_prior_assumptions(risk_bound(input.gibbs_loss, kl_inverse(input.gibbs_loss, nats), 1));
}

BoundResult mcallester_bound(const PacBayes& input) {
    const double nats = maurer_nats(input.divergence, input.samples, input.delta);
    return with_prior_assumptions(risk_bound(input.gibbs_loss, input.gibbs_loss + std::sqrt(nats / 2), 1));
}

BoundResult catoni_bound(const PacBayes& input, double lambda) {
    MOESAIC_ASSERT(lambda > 0, "lambda {}", lambda);
    const double nats = (input.divergence - std::log(input.delta)) / input.samples;
    const double value = std::expm1(-lambda * input.gibbs_loss - nats) / std::expm1(-lambda);
    BoundResult result = with_prior_assumptions(risk_bound(input.gibbs_loss, value, 1));
    result.assume("lambda_fixed", AssumptionStatus::unknown,
                  "lambda was fixed without the certifying examples");
    return result;
}

BoundResult bernstein_pac_bayes_bound(const PacBayes& input, double deviation, double lambda) {
    MOESAIC_ASSERT(lambda > 0 && lambda < 1 && deviation >= 0, "lambda {}, deviation {}", lambda, deviation);
    const double value = input.gibbs_loss + bernstein_psi(lambda) / lambda * deviation +
                         (input.divergence - std::log(input.delta)) / (input.samples * lambda);
    BoundResult result = with_prior_assumptions(risk_bound(input.gibbs_loss, value, 1));
    result.assume("lambda_fixed", AssumptionStatus::unknown,
                  "lambda was fixed without the certifying examples");
    return result;
}

double gaussian_divergence(double squared_distance, double sigma) {
    return squared_distance / (2 * sigma * sigma);
}

BoundResult private_gate_bound(const PrivateGate& input) {
    const double factor = std::exp(input.epsilon);
    const double inverse = kl_inverse(std::min(1.0, factor * input.gibbs_loss), private_gate_nats(input));
    return private_gate_result(input, factor * inverse);
}

BoundResult private_gate_pinsker_bound(const PrivateGate& input) {
    const double factor = std::exp(input.epsilon);
    return private_gate_result(
        input, factor * (factor * input.gibbs_loss + std::sqrt(private_gate_nats(input) / 2)));
}

double softmax_gate_epsilon(double clip, double experts) {
    // A share at its largest over the same share at its smallest.
    const double small = std::exp(-2 * clip);
    return 2 * clip + std::log((small + experts - 1) / (1 + (experts - 1) * small));
}

}  // namespace moesaic
