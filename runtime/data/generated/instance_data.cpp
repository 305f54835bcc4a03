#include "runtime/data/generated/instance_data.h"

#include <fmt/ranges.h>

#include "runtime/data/permutation.h"

namespace moesaic {

InstanceData::InstanceData(std::string name, const InstanceOptions& options, RuleCombinations combinations)
    : name_(std::move(name)),
      options_(options),
      combinations_(std::move(combinations)),
      training_(options.seed, name_ + " training"),
      test_(options.seed, name_ + " test"),
      held_out_(options.seed, name_ + " held-out combinations") {}

i64 InstanceData::shifted_windows() const {
    return combinations_.held_out.empty() ? 0 : options_.test;
}

i64 InstanceData::training_sequence(u64 seed, i64 number) const {
    const KeyedPermutation order(options_.samples, seed, fmt::format("epoch {}", number / options_.samples));
    return order(number % options_.samples);
}

void InstanceData::training_window(i64 index, WindowBuffer out) const {
    write_from(combinations_.trained, training_, index, out);
}

void InstanceData::validation_window(i64 index, WindowBuffer out) const {
    if (index < options_.test) {
        write_from(combinations_.trained, test_, index, out);
    } else {
        write_from(combinations_.held_out, held_out_, index - options_.test, out);
    }
}

void InstanceData::write_from(const std::vector<std::vector<int>>& combinations, const Philox& stream,
                              i64 index, WindowBuffer out) const {
    InstanceDraws draws(stream, index);
    write(combinations[static_cast<std::size_t>(draws.below(static_cast<int>(combinations.size())))], draws,
          out);
}

std::string InstanceData::fingerprint() const {
    const auto length = static_cast<std::size_t>(shape().seq_len);
    std::vector<i32> tokens(length), targets(length);
    WindowBuffer buffer(tokens.data());
    buffer.targets = targets.data();
    std::string text = fmt::format("{} {} {}", name_, options_.samples, options_.test);
    for (const i64 index : {i64{0}, options_.samples - 1}) {
        training_window(index, buffer);
        text += fmt::format(" {} {}", fmt::join(tokens, ","), fmt::join(targets, ","));
    }
    return text;
}

}  // namespace moesaic
