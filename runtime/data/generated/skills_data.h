// Primitive skills composed over topics, drawn by number: what SKILL-MIX (arXiv 2310.17567) asks of language,
// asked of symbols, where the right answer is known.
#pragma once

#include <span>

#include "runtime/base/philox.h"
#include "runtime/data/generated/rule_combinations.h"
#include "runtime/data/task_data.h"

namespace moesaic {

struct SkillsOptions {
    int skills = 12, combined = 3;  ///< S primitive ones; k are applied one after the other
    int topics = 8, values = 8, length = 4;
    double held_out = 0.25;
    i64 samples = 20'000'000;  ///< training instances; then they come again
    i64 test = 1024;           ///< of seen combinations, and as many of held-out ones
    u64 seed = 1;
};

/// One skill on a row of symbols, all modulo `values`, with a parameter p in [1, values) that follows from
/// skill and topic. By skill % 6: 0 adds p; 1 reverses the row and adds p; 2 rotates it left by p; 3
/// multiplies by 2p + 1; 4 subtracts from p; 5 replaces every symbol by the sum of those up to it, plus p.
void apply_skill(int skill, int topic, int values, u64 seed, std::span<int> symbols);

/// An instance draws a combination of k skills uniformly from its split's list, an order to apply them in, a
/// topic and `length` symbols. Its tokens are the topic, the skills in their order, the symbols, then
/// `length` blanks, whose targets are the symbols after all skills. Held-out combinations are the shifted
/// samples, whatever their order.
class SkillsData final : public TaskData {
  public:
    explicit SkillsData(const SkillsOptions& options);

    [[nodiscard]] SampleShape shape() const override;
    [[nodiscard]] i64 training_windows() const override { return options_.samples; }
    [[nodiscard]] i64 validation_windows() const override { return options_.test; }
    [[nodiscard]] i64 shifted_windows() const override;
    [[nodiscard]] i64 training_sequence(u64 seed, i64 number) const override;
    void training_window(i64 index, WindowBuffer out) const override;
    void validation_window(i64 index, WindowBuffer out) const override;
    [[nodiscard]] SampleError error() const override { return SampleError::any_wrong; }
    [[nodiscard]] std::string unit() const override;
    [[nodiscard]] std::string loss_unit() const override { return "nats/symbol"; }
    [[nodiscard]] std::string fingerprint() const override;
    [[nodiscard]] std::vector<std::string> files() const override;

    [[nodiscard]] const RuleCombinations& combinations() const { return combinations_; }

  private:
    void write(const std::vector<std::vector<int>>& combinations, const Philox& stream, i64 index,
               WindowBuffer out) const;

    SkillsOptions options_;
    RuleCombinations combinations_;
    Philox training_, test_, held_out_;
};

}  // namespace moesaic
