// What generated tasks share whose instances compose a combination of primitive rules or skills.
#pragma once

#include <string>

#include "runtime/base/philox.h"
#include "runtime/data/generated/draws.h"
#include "runtime/data/generated/rule_combinations.h"
#include "runtime/data/task_data.h"

namespace moesaic {

struct InstanceOptions {
    double held_out = 0.25;    ///< share of the combinations that is never trained
    i64 samples = 20'000'000;  ///< training instances; then they come again
    i64 test = 1024;           ///< of seen combinations, and as many of held-out ones
    u64 seed = 1;
};

/// An instance draws a combination uniformly from its split's list; the task draws the rest. Training, test
/// and held-out instances come from three unrelated streams. Held-out combinations are the shifted samples.
/// An answer counts as right where all of its targets are.
class InstanceData : public TaskData {
  public:
    [[nodiscard]] i64 training_windows() const final { return options_.samples; }
    [[nodiscard]] i64 validation_windows() const final { return options_.test; }
    [[nodiscard]] i64 shifted_windows() const final;
    [[nodiscard]] i64 training_sequence(u64 seed, i64 number) const final;
    void training_window(i64 index, WindowBuffer out) const final;
    void validation_window(i64 index, WindowBuffer out) const final;
    [[nodiscard]] SampleError error() const final { return SampleError::any_wrong; }
    [[nodiscard]] std::string fingerprint() const final;

    [[nodiscard]] const RuleCombinations& combinations() const { return combinations_; }

  protected:
    /// `name` of the task: streams follow from it and the seed.
    InstanceData(std::string name, const InstanceOptions& options, RuleCombinations combinations);

  private:
    /// The rest of an instance whose combination is drawn.
    virtual void write(const std::vector<int>& combination, InstanceDraws& draws, WindowBuffer out) const = 0;
    void write_from(const std::vector<std::vector<int>>& combinations, const Philox& stream, i64 index,
                    WindowBuffer out) const;

    std::string name_;
    InstanceOptions options_;
    RuleCombinations combinations_;
    Philox training_, test_, held_out_;
};

}  // namespace moesaic
