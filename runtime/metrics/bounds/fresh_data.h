// Certificates from losses on data the current weights have not been trained on, valid at every step.
#pragma once

#include <optional>

namespace moesaic {

/// -ln(1 - lambda) - lambda, lambda in [0, 1): what squared deviations cost in Bernstein's form.
[[nodiscard]] double bernstein_psi(double lambda);

/// Windows of a stream of fresh units. A window opens at the first step boundary at which `first_window`
/// units are past, and again whenever their number has doubled. Window i = 1, 2, ... may fail with
/// probability delta/(i(i+1)), or delta/planned_windows.
struct FreshDataOptions {
    double delta = 0.05;
    double first_window = 64;               ///< units, >= 2
    std::optional<double> planned_windows;  ///< known beforehand, e.g. from the planned number of steps
    double minimum_count = 64;              ///< below it the previous window's final bound is shown
};

/// What is known after a step. With probability 1 - delta, at all steps and for all windows at once: the
/// mean, over the window's units, of the chance (expected loss) that each had when it was met is at most
/// `upper`. For fixed weights this is the model's risk; in training it is that of a model drawn from the
/// window's.
struct FreshDataBound {
    double upper = 1;   ///< 1: nothing is known yet
    double mean = 0;    ///< of the losses of the window that `upper` speaks of
    double count = 0;   ///< its units
    double window = 0;  ///< its number, from 1; 0: none
};

/// Everything a certificate remembers, as plain numbers: may be stored and restored with a checkpoint.
struct FreshDataState {
    double past_count = 0, past_sum = 0, past_squares = 0;  ///< before the current window
    double window = 0;                                      ///< number of the current one; 0: not yet open
    double opened_at = 0;                                   ///< units before it
    double lambda = 0, window_delta = 0;                    ///< fixed when it opened
    double count = 0, sum = 0, squares = 0;                 ///< within it
    double deviations = 0;                                  ///< from the centers, squared, within it (EB)
    double center = 0.5;                                    ///< prediction of the next losses (EB)
    FreshDataBound previous;                                ///< final bound of the window before
};

/// The windows; what a window's bound is made of is up to the two classes below. Losses in [0, 1].
class FreshDataCertificate {
  public:
    explicit FreshDataCertificate(const FreshDataOptions& options) : options_(options) {}
    virtual ~FreshDataCertificate() = default;

    /// One step's fresh units: how many, the sum of their losses, the sum of the squares. To be called before
    /// the weights see them; the numbers summed over all ranks, so that every rank has the same state.
    void add(double count, double sum, double sum_of_squares);
    /// The current window's bound, or the previous one's while it has fewer than minimum_count units.
    [[nodiscard]] FreshDataBound bound() const;

    [[nodiscard]] const FreshDataState& state() const { return state_; }
    void restore(const FreshDataState& state) { state_ = state; }

  protected:
    [[nodiscard]] virtual double choose_lambda(const FreshDataState& state, double planned) const = 0;
    [[nodiscard]] virtual double upper(const FreshDataState& state) const = 0;

  private:
    [[nodiscard]] FreshDataBound current() const;
    void open_window();

    FreshDataOptions options_;
    FreshDataState state_;
};

/// mean + (ln(1/delta) + psi sum (x - mu)^2)/(n lambda), psi = -ln(1-lambda) - lambda, mu the mean of all
/// fresh losses before the step. For averages over documents. Source: Howard, Ramdas, McAuliffe, Sekhon 2021;
/// proof in the README of this folder.
class BernsteinCertificate final : public FreshDataCertificate {
  public:
    using FreshDataCertificate::FreshDataCertificate;

  protected:
    [[nodiscard]] double choose_lambda(const FreshDataState& state, double planned) const override;
    [[nodiscard]] double upper(const FreshDataState& state) const override;
};

/// (1 - exp(-lambda mean - ln(1/delta)/n)) / (1 - exp(-lambda)). For 0-1 losses with few errors. Source:
/// Catoni's form over a stream; proof in the README of this folder.
class CatoniCertificate final : public FreshDataCertificate {
  public:
    using FreshDataCertificate::FreshDataCertificate;

  protected:
    [[nodiscard]] double choose_lambda(const FreshDataState& state, double planned) const override;
    [[nodiscard]] double upper(const FreshDataState& state) const override;
};

/// lambda of the Catoni form for a mean of about `expected` over `planned` units; expected is kept in [0.01,
/// 0.99].
[[nodiscard]] double catoni_lambda(double expected, double planned, double delta);
/// lambda of the Bernstein form that makes it least for `planned` units of about that variance; at most 0.95.
[[nodiscard]] double bernstein_lambda(double expected_variance, double planned, double delta);

}  // namespace moesaic
