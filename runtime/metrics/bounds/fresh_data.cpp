#include "runtime/metrics/bounds/fresh_data.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/test_set.h"

namespace moesaic {

void FreshDataCertificate::add(double count, double sum, double sum_of_squares) {
    const double rounding = 1e-9 * (1 + count);
    MOESAIC_ASSERT(count >= 0 && sum >= -rounding && sum <= count + rounding && sum_of_squares >= -rounding &&
                       sum_of_squares <= sum + rounding,
                   "losses outside [0, 1]: count {} sum {} sum of squares {}", count, sum, sum_of_squares);
    const double before = state_.past_count + state_.count;
    if (before >= options_.first_window && (state_.window == 0 || before >= 2 * state_.opened_at)) {
        open_window();
    }
    if (state_.window == 0) {
        state_.past_count += count;
        state_.past_sum += sum;
        state_.past_squares += sum_of_squares;
        return;
    }
    // The centre moves between steps only: it must be known before the losses it is compared with.
    const double center = state_.center;
    state_.deviations += std::max(0.0, sum_of_squares - 2 * center * sum + count * center * center);
    state_.count += count;
    state_.sum += sum;
    state_.squares += sum_of_squares;
    state_.center = (state_.past_sum + state_.sum) / (state_.past_count + state_.count);
}

void FreshDataCertificate::open_window() {
    if (state_.window > 0) state_.previous = current();
    state_.past_count += state_.count;
    state_.past_sum += state_.sum;
    state_.past_squares += state_.squares;
    state_.count = state_.sum = state_.squares = state_.deviations = 0;
    state_.opened_at = state_.past_count;
    ++state_.window;
    const double planned_windows = options_.planned_windows.value_or(0);
    if (planned_windows <= 0) {
        state_.window_delta = delta_of_look(options_.delta, state_.window);
    } else {
        // More windows than planned have nothing left to spend.
        state_.window_delta = state_.window <= planned_windows ? options_.delta / planned_windows : 0;
    }
    state_.center = state_.past_sum / state_.past_count;
    state_.lambda = state_.window_delta > 0 ? choose_lambda(state_, state_.opened_at) : 0;
}

FreshDataBound FreshDataCertificate::current() const {
    FreshDataBound bound;
    bound.window = state_.window;
    bound.count = state_.count;
    bound.mean = state_.count > 0 ? state_.sum / state_.count : 0;
    const bool says_something = state_.count > 0 && state_.window_delta > 0;
    bound.upper = says_something ? std::min(1.0, upper(state_)) : 1;
    return bound;
}

FreshDataBound FreshDataCertificate::bound() const {
    if (state_.window == 0) return {};
    const bool too_few = state_.count < options_.minimum_count || state_.window_delta <= 0;
    return too_few && state_.previous.window > 0 ? state_.previous : current();
}

double BernsteinCertificate::choose_lambda(const FreshDataState& state, double planned) const {
    const double mean = state.past_sum / state.past_count;
    const double variance = std::max(0.0, state.past_squares / state.past_count - mean * mean);
    return bernstein_lambda(variance, planned, state.window_delta);
}

double BernsteinCertificate::upper(const FreshDataState& state) const {
    return state.sum / state.count +
           (bernstein_psi(state.lambda) * state.deviations - std::log(state.window_delta)) /
               (state.count * state.lambda);
}

double CatoniCertificate::choose_lambda(const FreshDataState& state, double planned) const {
    return catoni_lambda(state.past_sum / state.past_count, planned, state.window_delta);
}

double CatoniCertificate::upper(const FreshDataState& state) const {
    const double exponent =
        -state.lambda * state.sum / state.count + std::log(state.window_delta) / state.count;
    return std::expm1(exponent) / std::expm1(-state.lambda);
}

double catoni_lambda(double expected, double planned, double delta) {
    const double p = std::clamp(expected, 0.01, 0.99);
    const double limit = std::min(kl_inverse(p, -std::log(delta) / planned), 1 - 1e-9);
    return std::log(limit * (1 - p) / (p * (1 - limit)));
}

double bernstein_psi(double lambda) {
    return -std::log1p(-lambda) - lambda;
}

double bernstein_lambda(double expected_variance, double planned, double delta) {
    // (nats + psi(lambda) squares)/lambda falls, then rises: lambda psi'(lambda) - psi(lambda) is
    // nats/squares at its least, and that grows with lambda.
    const double target = -std::log(delta) / (planned * std::max(expected_variance, 1e-12));
    double low = 0, high = 0.95;
    for (int i = 0; i < 60; ++i) {
        const double lambda = 0.5 * (low + high);
        const double slope = lambda / (1 - lambda);
        (lambda * slope - bernstein_psi(lambda) < target ? low : high) = lambda;
    }
    return high;
}

}  // namespace moesaic
