#include "runtime/data/generated/sraven_data.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr int kPanels = 9;  // eight of context, one to find

/// Distinct, in the order of their draws.
std::array<int, 3> three_of(int values, InstanceDraws& draws) {
    std::array<int, 3> drawn{};
    for (int count = 0; count < 3; ++count) {
        int value = draws.below(values - count);  // among those that are left
        std::array<int, 3> before = drawn;
        std::sort(before.begin(), before.begin() + count);
        for (int i = 0; i < count; ++i) value += value >= before[static_cast<std::size_t>(i)] ? 1 : 0;
        drawn[static_cast<std::size_t>(count)] = value;
    }
    return drawn;
}

int modulo(int value, int values) {
    return ((value % values) + values) % values;
}

}  // namespace

FeatureGrid draw_feature(int rule, int values, InstanceDraws& draws) {
    MOESAIC_ASSERT(0 <= rule && rule < kRavenRules, "rule {}", rule);
    static constexpr int kIncrements[] = {0, 1, 2, -1, -2};  // a constant is a progression by 0
    FeatureGrid grid{};
    if (rule == 7) {
        const std::array<int, 3> symbols = three_of(values, draws);
        for (std::array<int, 3>& row : grid) {
            const std::vector<int> order = draws.permutation(3);
            for (std::size_t i = 0; i < 3; ++i) row[i] = symbols[static_cast<std::size_t>(order[i])];
        }
        return grid;
    }
    for (std::array<int, 3>& row : grid) {
        row[0] = draws.below(values);
        if (rule <= 4) {
            for (int i = 1; i < 3; ++i)
                row[static_cast<std::size_t>(i)] = modulo(row[0] + i * kIncrements[rule], values);
        } else {
            row[1] = draws.below(values);
            row[2] = modulo(rule == 5 ? row[0] + row[1] : row[0] - row[1], values);
        }
    }
    return grid;
}

SravenData::SravenData(const SravenOptions& options)
    : InstanceData("sraven", options,
                   split_combinations(kRavenRules, options.features, options.held_out, options.seed)),
      options_(options) {}

SampleShape SravenData::shape() const {
    SampleShape shape;
    shape.seq_len = kPanels * options_.features;
    shape.vocabulary = options_.values + 1;  // and the blank
    shape.outputs = options_.values;
    shape.targets_at_end = options_.features;
    return shape;
}

void SravenData::write(const std::vector<int>& rules, InstanceDraws& draws, WindowBuffer out) const {
    const int features = options_.features;
    std::vector<FeatureGrid> grids;
    for (const int rule : rules) grids.push_back(draw_feature(rule, options_.values, draws));
    // Without an order of their own in each column, features would stand by the number of their rule.
    std::array<std::vector<int>, 3> order;
    for (std::vector<int>& one : order) one = draws.permutation(features);
    const i64 context = (kPanels - 1) * features;
    std::fill_n(out.targets, context, -1);
    std::fill_n(out.tokens + context, features, options_.values);
    for (std::size_t panel = 0; panel < kPanels; ++panel) {
        const std::size_t row = panel / 3, column = panel % 3;
        for (int i = 0; i < features; ++i) {
            const auto feature = static_cast<std::size_t>(order[column][static_cast<std::size_t>(i)]);
            i32* const to =
                panel + 1 < kPanels ? out.tokens + static_cast<i64>(panel) * features : out.targets + context;
            to[i] = grids[feature][row][column];
        }
    }
}

std::string SravenData::unit() const {
    return fmt::format("matrices of {} features", options_.features);
}

std::vector<std::string> SravenData::files() const {
    return {fmt::format("{} combinations of {} rules trained, {} held out; chance {:.3g}",
                        combinations().trained.size(), options_.features, combinations().held_out.size(),
                        std::pow(1.0 / options_.values, options_.features))};
}

}  // namespace moesaic
