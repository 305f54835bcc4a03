#include "launch/step_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/median.h"

namespace moesaic {

namespace {

constexpr const char* kCounts = "step_policy";
constexpr const char* kNorms = "gradient_norms";

StepVerdict verdict_of(const std::string& policy) {
    return policy == "skip"       ? StepVerdict::skip
           : policy == "rollback" ? StepVerdict::rollback
                                  : StepVerdict::stop;
}

std::string shown(double value) {
    return std::isnan(value) ? "nan" : fmt::format("{}", value);  // never "-nan"
}

}  // namespace

StepJudgement StepPolicy::judge(i64 step, double loss, double grad_norm) {
    StepJudgement judgement;
    if (!std::isfinite(loss) || !std::isfinite(grad_norm)) {
        judgement = {verdict_of(config_.nonfinite),
                     "nonfinite",
                     fmt::format("the loss is {} and the gradient's norm {}", shown(loss), shown(grad_norm)),
                     0,
                     0,
                     false};
    } else if (!config_.spike.off && std::ssize(norms_) == config_.spike.steps) {
        const double usual = upper_median({norms_.begin(), norms_.end()});
        if (usual > 0 && grad_norm >= config_.spike.threshold * usual) {
            judgement = {verdict_of(config_.spike.policy),
                         "gradient_spike",
                         fmt::format("the gradient's norm is {:.4g}, {:.3g} times the median of the {} steps "
                                     "before",
                                     grad_norm, grad_norm / usual, config_.spike.steps),
                         grad_norm / usual,
                         config_.spike.threshold,
                         true};
        }
    }
    if (judgement.verdict == StepVerdict::take) {
        skipped_on_end_ = 0;
        if (step > returns_.failed_step) returns_.count = 0;
        if (!config_.spike.off) norms_.push_back(grad_norm);
        if (std::ssize(norms_) > config_.spike.steps) norms_.pop_front();
        return judgement;
    }
    const bool goes_back = judgement.verdict == StepVerdict::rollback;
    i64& on_end = goes_back ? returns_.count : skipped_on_end_;
    if (judgement.verdict != StepVerdict::stop && ++on_end > config_.most_skips) {
        judgement.verdict = StepVerdict::stop;
        judgement.what += fmt::format(", after {} {} on end (train.most_skips)", config_.most_skips,
                                      goes_back ? "returns to a checkpoint" : "updates were left out");
    }
    if (judgement.verdict == StepVerdict::skip) ++skipped_;
    returns_.failed_step = std::max(returns_.failed_step, step);
    returns_.batch_shift = batch_shift_;
    return judgement;
}

std::map<std::string, std::vector<double>> StepPolicy::observers() const {
    std::map<std::string, std::vector<double>> numbers;
    if (skipped_ > 0 || batch_shift_ > 0 || skipped_on_end_ > 0)
        numbers[kCounts] = {static_cast<double>(skipped_), static_cast<double>(batch_shift_),
                            static_cast<double>(skipped_on_end_)};
    if (!norms_.empty()) numbers[kNorms] = {norms_.begin(), norms_.end()};
    return numbers;
}

void StepPolicy::begin(i64 step, const std::map<std::string, std::vector<double>>& observers) {
    if (const auto counts = observers.find(kCounts);
        counts != observers.end() && counts->second.size() == 3) {
        skipped_ = static_cast<i64>(counts->second[0]);
        batch_shift_ = static_cast<i64>(counts->second[1]);
        skipped_on_end_ = static_cast<i64>(counts->second[2]);
    }
    if (const auto norms = observers.find(kNorms); norms != observers.end() && !config_.spike.off) {
        norms_.assign(norms->second.begin(), norms->second.end());
        while (std::ssize(norms_) > config_.spike.steps) norms_.pop_front();
    }
    if (returns_.count == 0 || returns_.failed_step <= step) return;
    batch_shift_ = std::max(batch_shift_, returns_.batch_shift);  // what an earlier return has left out
    if (returns_.count > 1) batch_shift_ += returns_.failed_step - step;
}

i64 batch_shift_of(const std::map<std::string, std::vector<double>>& observers) {
    const auto counts = observers.find(kCounts);
    return counts == observers.end() || counts->second.size() != 3 ? 0 : static_cast<i64>(counts->second[1]);
}

}  // namespace moesaic
