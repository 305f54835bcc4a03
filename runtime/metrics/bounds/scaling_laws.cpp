#include "runtime/metrics/bounds/scaling_laws.h"

#include <algorithm>
#include <cmath>

#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

namespace {

/// E' of Clark et al.: `start` at one expert, `limit` for ever more.
double saturated_experts(double experts, double start, double limit) {
    return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / limit)) + 1 / limit);
}

BoundResult prediction(BoundTerms terms, const char* condition) {
    BoundResult result;
    result.value = terms.sum();
    result.terms = std::move(terms);
    result
        .assume("certificate", AssumptionStatus::violated,
                "the number bounds a loss: no, it is a curve fitted to other people's runs")
        .assume("same_setting", AssumptionStatus::unknown, condition);
    return result;
}

}  // namespace

BoundResult clark_loss(double parameters, double experts, const ClarkLaw& law) {
    const double saturated = saturated_experts(experts, law.start, law.limit);
    const double size = std::log10(parameters), count = std::log10(saturated);
    BoundTerms terms;
    terms.add("loss", std::pow(10, law.a * size + law.b * count + law.c * size * count + law.d));
    BoundResult result = prediction(std::move(terms),
                                    "data, tokenizer and routing are those of the fit (C4-like text, k = 1)");
    result.details.add("saturated_experts", saturated);
    const auto slope = [&](double effective) { return law.a + law.c * std::log10(effective); };
    const double start = slope(law.start);
    result.details.add("dense_equivalent", std::pow(parameters, slope(saturated) / start) *
                                               std::pow(saturated / law.start, law.b / start));
    return result;
}

BoundResult krajewski_loss(double parameters, double tokens, double granularity) {
    BoundTerms terms;
    terms.add("size", (2.1 / std::pow(granularity, 0.58) + 18.1) / std::pow(parameters, 0.115));
    terms.add("data", 30.8 / std::pow(tokens, 0.147));
    terms.add("irreducible", 0.47);
    BoundResult result = prediction(std::move(terms), "data and tokenizer are those of the fit");
    return result.assume("coefficients_checked", AssumptionStatus::unknown,
                         "the coefficients were compared with the paper");
}

BoundResult ludziejewski_loss(double active_parameters, double tokens, double experts) {
    const double saturated = saturated_experts(experts, 2.0732, 290.4521);
    const double ln_saturated = std::log(saturated);
    BoundTerms terms;
    terms.add("size", 35.91 * std::pow(saturated, -0.2285) *
                          std::pow(active_parameters, -(0.1889 - 0.0098 * ln_saturated)));
    terms.add("data",
              35.98 * std::pow(saturated, 0.5529) * std::pow(tokens, -(0.1775 + 0.0259 * ln_saturated)));
    terms.add("irreducible", 1.3637);
    BoundResult result = prediction(std::move(terms), "data and tokenizer are those of the fit");
    result.details.add("saturated_experts", saturated);
    return result.assume("coefficients_checked", AssumptionStatus::unknown,
                         "signs and the constants of the expert count were compared with the paper");
}

double effective_tokens(double unique_tokens, double tokens, double decay) {
    const double repeats = std::max(0.0, tokens / unique_tokens - 1);
    return std::min(unique_tokens, tokens) - decay * unique_tokens * std::expm1(-repeats / decay);
}

BoundResult data_constrained_loss(double parameters, double unique_tokens, double tokens) {
    constexpr double kSizeDecay = 5.3;
    const double useful = std::min(0.051 * unique_tokens, parameters);
    const double excess = std::max(parameters / useful - 1, 0.0);
    const double effective = useful - kSizeDecay * useful * std::expm1(-excess / kSizeDecay);
    const double data = effective_tokens(unique_tokens, tokens);
    BoundTerms terms;
    terms.add("size", 521 / std::pow(effective, 0.353));
    terms.add("data", 1488 / std::pow(data, 0.353));
    terms.add("irreducible", 1.87);
    BoundResult result = prediction(std::move(terms), "a dense model, data and tokenizer of the fit");
    result.details.add("effective_parameters", effective);
    result.details.add("effective_tokens", data);
    return result;
}

BoundResult best_active_experts(const ActiveExpertsTradeOff& input) {
    BoundResult result;
    result.value = 1;
    double least = HUGE_VAL;
    for (double k = 1; k <= input.experts; ++k) {
        const double approximation = input.approximation * std::pow(input.complexity / k, input.power);
        const double estimation =
            input.weight *
            std::sqrt(2 * input.natarajan * ln_binomial_relaxed(input.experts, k) / input.samples);
        if (approximation + estimation >= least) continue;
        least = approximation + estimation;
        result.value = k;
        result.terms.list = {{"approximation", approximation}, {"estimation", estimation}};
    }
    result.details.add("objective", least);
    return result.assume("certificate", AssumptionStatus::violated,
                         "the number is a theorem's: no, it balances two curves we chose");
}

double continuous_active_experts(const ActiveExpertsTradeOff& input, double ell) {
    const double ratio = 2 * input.power * input.approximation * std::pow(input.complexity, input.power) /
                         input.weight * std::sqrt(input.samples / ell);
    return std::clamp(std::pow(ratio, 1 / (input.power + 0.5)), 1.0, input.experts);
}

}  // namespace moesaic
