#include "launch/training_history.h"

#include <algorithm>

#include "launch/checkpoint_loading.h"
#include "launch/step_policy.h"
#include "runtime/base/checksum.h"

namespace moesaic {

namespace {

using Observers = std::map<std::string, std::vector<double>>;

constexpr const char* kName = "training_history";
constexpr std::size_t kNumbers = 10;
constexpr const char* kRunNumbers = "generalization";  // looks, imported, seed, batch, epoch, windows
constexpr std::size_t kRunNumbersFrom = 2, kFewestRunNumbers = 6;

double high_half(u64 checksum) {
    return static_cast<double>(checksum >> 32);
}
double low_half(u64 checksum) {
    return static_cast<double>(checksum & 0xffffffffu);
}
u64 checksum_from(const double* halves) {
    return static_cast<u64>(halves[0]) << 32 | static_cast<u64>(halves[1]);
}

/// What a version without a history knows: whether the data had these sizes, and the seed.
TrainedOn assumed(const TrainingPosition& position, const std::vector<double>& run_numbers) {
    TrainedOn start;
    start.recorded = false;
    double batch = run_numbers[1];
    const auto stored = position.observers.find(kRunNumbers);
    if (stored != position.observers.end() && stored->second.size() >= kFewestRunNumbers) {
        const double* const before = stored->second.data() + kRunNumbersFrom;
        batch = before[1];
        start.one_split = before[3] == run_numbers[3];
        start.one_order = start.one_split && before[0] == run_numbers[0] && before[2] == run_numbers[2];
    }
    const auto sequences = static_cast<i64>(batch);
    start.met = (position.step + batch_shift_of(position.observers)) * sequences;
    start.trained = start.prefix = position.step * sequences;
    return start;
}

}  // namespace

u64 order_with_share(const RunSetup& run, double share) {
    const std::string text = fmt::format("{:016x} {:016x} {}", run.split, run.order, share);
    return checksum_of(text.data(), text.size());
}

std::optional<TrainedOn> trained_on(const Observers& observers) {
    const auto found = observers.find(kName);
    if (found == observers.end() || found->second.size() != kNumbers) return {};
    const double* const numbers = found->second.data();
    TrainedOn history;
    history.split = checksum_from(numbers);
    history.order = checksum_from(numbers + 2);
    history.one_split = numbers[4] != 0;
    history.one_order = numbers[5] != 0;
    history.recorded = numbers[6] != 0;
    history.met = static_cast<i64>(numbers[7]);
    history.trained = static_cast<i64>(numbers[8]);
    history.prefix = static_cast<i64>(numbers[9]);
    return history;
}

i64 met_by(i64 step, const Observers& observers, const TrainConfig& train) {
    const auto history = trained_on(observers);
    return history ? history->met : (step + batch_shift_of(observers)) * train.batch_sequences;
}

TrainingHistory::TrainingHistory(const RunSetup& run)
    : split_(run.split),
      order_(order_with_share(run, run.config.task.data.training_share)),
      batch_sequences_(run.config.train.batch_sequences),
      epoch_(run.dataset->first_epoch_sequences(static_cast<u64>(run.config.run.seed))) {
    for (const i64 number : {run.config.run.seed, batch_sequences_, epoch_, run.dataset->training_windows()})
        run_numbers_.push_back(static_cast<double>(number));
}

void TrainingHistory::begin(const TrainingPosition& position, bool imported) {
    start_step_ = position.step;
    shift_ = batch_shift_of(position.observers);
    const auto stored = trained_on(position.observers);
    if (stored) {
        start_ = *stored;
        const bool trained = start_.met > 0;  // before anything was, any data will do
        start_.one_split = start_.one_split && (!trained || start_.split == split_);
        start_.one_order = start_.one_split && start_.one_order && (!trained || start_.order == order_);
    } else if (position.step > 0 || imported) {
        start_ = assumed(position, run_numbers_);
    }
    start_.split = split_;
    start_.order = order_;
}

TrainedOn TrainingHistory::after(i64 step) const {
    TrainedOn now = start_;
    if (step <= start_step_) return now;
    const i64 from = position(start_step_), to = position(step);
    now.met = std::max(start_.met, to);
    // Different ones of the first epoch: those beyond what was met before.
    now.trained += std::max<i64>(0, std::min(to, epoch_) - std::min(std::max(start_.met, from), epoch_));
    if (from <= start_.prefix) now.prefix = std::max(start_.prefix, to);
    return now;
}

Observers TrainingHistory::observers(i64 step) const {
    const TrainedOn now = after(step);
    const auto number = [](auto value) { return static_cast<double>(value); };
    return {{kName,
             {high_half(now.split), low_half(now.split), high_half(now.order), low_half(now.order),
              number(now.one_split), number(now.one_order), number(now.recorded), number(now.met),
              number(now.trained), number(now.prefix)}}};
}

std::string TrainingHistory::why_not_held_out() const {
    if (start_.one_split) return "";
    return "the weights were trained on other data, or with another split of them (task.data), and what is "
           "held out here may be among those";
}

std::string TrainingHistory::why_order_unknown() const {
    if (!start_.one_split) return why_not_held_out();
    if (start_.one_order) return "";
    return "the weights were trained in another order than this (run.seed, task.data), and which training "
           "data they have met is not known";
}

}  // namespace moesaic
