#include "runtime/data/generated/skills_data.h"

#include <algorithm>
#include <numeric>

namespace moesaic {

void apply_skill(int skill, int topic, int values, u64 seed, std::span<int> symbols) {
    const Philox parameters(seed, "skills' parameters");
    const u64 number = static_cast<u64>(skill) * 65536 + static_cast<u64>(topic);
    const int p = 1 + static_cast<int>(parameters.bits(number) % static_cast<u32>(values - 1));
    const int kind = skill % 6;
    if (kind == 1) std::reverse(symbols.begin(), symbols.end());
    if (kind == 2) {
        std::rotate(symbols.begin(), symbols.begin() + p % std::ssize(symbols), symbols.end());
        return;
    }
    if (kind == 5) std::partial_sum(symbols.begin(), symbols.end(), symbols.begin());
    for (int& symbol : symbols) {
        symbol = kind == 3 ? symbol * (2 * p + 1) : kind == 4 ? p - symbol + values : symbol + p;
        symbol %= values;
    }
}

SkillsData::SkillsData(const SkillsOptions& options)
    : InstanceData("skills", options,
                   split_combinations(options.skills, options.combined, options.held_out, options.seed)),
      options_(options) {}

SampleShape SkillsData::shape() const {
    SampleShape shape;
    shape.seq_len = 1 + options_.combined + 2 * options_.length;
    shape.vocabulary = options_.values + 1 + options_.topics + options_.skills;  // symbols, the blank, ...
    shape.outputs = options_.values;
    shape.targets_at_end = options_.length;
    return shape;
}

void SkillsData::write(const std::vector<int>& skills, InstanceDraws& draws, WindowBuffer out) const {
    const int values = options_.values, length = options_.length;
    const std::vector<int> order = draws.permutation(options_.combined);
    const int topic = draws.below(options_.topics);
    std::vector<int> symbols;
    for (int i = 0; i < length; ++i) symbols.push_back(draws.below(values));
    i32* token = out.tokens;
    *token++ = values + 1 + topic;
    for (const int place : order)
        *token++ = values + 1 + options_.topics + skills[static_cast<std::size_t>(place)];
    token = std::copy(symbols.begin(), symbols.end(), token);
    std::fill_n(token, length, values);
    for (const int place : order)
        apply_skill(skills[static_cast<std::size_t>(place)], topic, values, options_.seed, symbols);
    i32* const targets = std::fill_n(out.targets, token - out.tokens, -1);
    std::copy(symbols.begin(), symbols.end(), targets);
}

std::string SkillsData::unit() const {
    return fmt::format("instances of {} skills on {} symbols", options_.combined, options_.length);
}

std::vector<std::string> SkillsData::files() const {
    return {fmt::format("{} combinations of {} skills trained, {} held out, over {} topics",
                        combinations().trained.size(), options_.combined, combinations().held_out.size(),
                        options_.topics)};
}

}  // namespace moesaic
