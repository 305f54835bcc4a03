// Primitive skills composed over topics, drawn by number: what SKILL-MIX (arXiv 2310.17567) asks of language,
// asked of symbols, where the right answer is known.
#pragma once

#include <span>

#include "runtime/data/generated/instance_data.h"

namespace moesaic {

struct SkillsOptions : InstanceOptions {
    int skills = 12, combined = 3;  ///< S primitive ones; k are applied one after the other
    int topics = 8, values = 8, length = 4;
};

/// One skill on a row of symbols, all modulo `values`, with a parameter p in [1, values) that follows from
/// skill and topic. By skill % 6: 0 adds p; 1 reverses the row and adds p; 2 rotates it left by p; 3
/// multiplies by 2p + 1; 4 subtracts from p; 5 replaces every symbol by the sum of those up to it, plus p.
void apply_skill(int skill, int topic, int values, u64 seed, std::span<int> symbols);

/// An instance draws a combination of k skills, an order to apply them in, a topic and `length` symbols. Its
/// tokens are the topic, the skills in their order, the symbols, then `length` blanks, whose targets are the
/// symbols after all skills.
class SkillsData final : public InstanceData {
  public:
    explicit SkillsData(const SkillsOptions& options);

    [[nodiscard]] SampleShape shape() const override;
    [[nodiscard]] std::string unit() const override;
    [[nodiscard]] std::string loss_unit() const override { return "nats/symbol"; }
    [[nodiscard]] std::vector<std::string> files() const override;

  private:
    void write(const std::vector<int>& skills, InstanceDraws& draws, WindowBuffer out) const override;

    SkillsOptions options_;
};

}  // namespace moesaic
