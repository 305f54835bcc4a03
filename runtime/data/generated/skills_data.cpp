#include "runtime/data/generated/skills_data.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/data/generated/draws.h"
#include "runtime/data/permutation.h"

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
    : options_(options),
      combinations_(split_combinations(options.skills, options.combined, options.held_out, options.seed)),
      training_(options.seed, "skills training"),
      test_(options.seed, "skills test"),
      held_out_(options.seed, "skills held-out combinations") {}

SampleShape SkillsData::shape() const {
    SampleShape shape;
    shape.seq_len = 1 + options_.combined + 2 * options_.length;
    shape.vocabulary = options_.values + 1 + options_.topics + options_.skills;  // symbols, the blank, ...
    shape.outputs = options_.values;
    shape.targets_at_end = options_.length;
    return shape;
}

i64 SkillsData::shifted_windows() const {
    return combinations_.held_out.empty() ? 0 : options_.test;
}

i64 SkillsData::training_sequence(u64 seed, i64 number) const {
    const KeyedPermutation order(options_.samples, seed, fmt::format("epoch {}", number / options_.samples));
    return order(number % options_.samples);
}

void SkillsData::training_window(i64 index, WindowBuffer out) const {
    write(combinations_.trained, training_, index, out);
}

void SkillsData::validation_window(i64 index, WindowBuffer out) const {
    if (index < options_.test) {
        write(combinations_.trained, test_, index, out);
    } else {
        write(combinations_.held_out, held_out_, index - options_.test, out);
    }
}

void SkillsData::write(const std::vector<std::vector<int>>& combinations, const Philox& stream, i64 index,
                       WindowBuffer out) const {
    const int values = options_.values, length = options_.length;
    InstanceDraws draws(stream, index);
    const auto chosen = static_cast<std::size_t>(draws.below(static_cast<int>(combinations.size())));
    const std::vector<int>& skills = combinations[chosen];
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

std::string SkillsData::fingerprint() const {
    const auto length = static_cast<std::size_t>(shape().seq_len);
    std::vector<i32> tokens(length), targets(length);
    WindowBuffer buffer(tokens.data());
    buffer.targets = targets.data();
    std::string text = fmt::format("skills {} {}", options_.samples, options_.test);
    for (const i64 index : {i64{0}, options_.samples - 1}) {
        training_window(index, buffer);
        text += fmt::format(" {} {}", fmt::join(tokens, ","), fmt::join(targets, ","));
    }
    return text;
}

std::vector<std::string> SkillsData::files() const {
    return {fmt::format("{} combinations of {} skills trained, {} held out, over {} topics",
                        combinations_.trained.size(), options_.combined, combinations_.held_out.size(),
                        options_.topics)};
}

}  // namespace moesaic
