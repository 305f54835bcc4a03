#include "comm/exchange/expected_traffic.h"

#include <algorithm>

#include "comm/exchange/exchange.h"

namespace moesaic {

namespace {

constexpr std::string_view kPhases[] = {kDispatchPhase, kCombinePhase, kCombineBackwardPhase,
                                        kDispatchBackwardPhase};

/// `bytes` that each go to the partner on a node at random.
ExpectedBytes across(std::string_view phase, const TrafficShape& shape, double bytes) {
    const auto nodes = static_cast<double>(shape.nodes);
    return {phase, bytes / nodes, 0, bytes * (nodes - 1) / nodes};
}

/// `bytes` that each go to a rank of the same node at random.
ExpectedBytes within(std::string_view phase, const TrafficShape& shape, double bytes) {
    const auto ranks = static_cast<double>(shape.ranks_per_node);
    return {phase, bytes / ranks, bytes * (ranks - 1) / ranks, 0};
}

ExpectedBytes sum(const ExpectedBytes& a, const ExpectedBytes& b) {
    return {a.phase, a.self + b.self, a.same_node + b.same_node, a.cross_node + b.cross_node};
}

double choice_bytes(const TrafficShape& shape) {
    return shape.tokens * static_cast<double>(shape.choices * shape.row_bytes);
}

}  // namespace

i64 TrafficShape::choices_on_node() const {
    return std::min(choices, experts / nodes);
}

ExpectedBytes spread_over_ranks(std::string_view phase, const TrafficShape& shape, double bytes) {
    const double each = bytes / static_cast<double>(shape.ranks());
    return {phase, each, each * static_cast<double>(shape.ranks_per_node - 1),
            each * static_cast<double>((shape.nodes - 1) * shape.ranks_per_node)};
}

double share_of_tokens_on_node(const TrafficShape& shape) {
    // Slices of an expert are neighbours: it has one on a node, or none.
    const i64 experts = shape.experts / shape.slices;
    const i64 on_node = experts * std::max(shape.ranks_per_node, shape.slices) / shape.ranks();
    double missing = 1;
    for (i64 k = 0; k < shape.choices / shape.slices; ++k) {
        const i64 elsewhere = experts - on_node - k;
        missing *= std::max(0.0, static_cast<double>(elsewhere) / static_cast<double>(experts - k));
    }
    return 1 - missing;
}

std::vector<ExpectedBytes> expected_flat(const ExchangeSettings&, const TrafficShape& shape) {
    std::vector<ExpectedBytes> all;
    for (const std::string_view phase : kPhases)
        all.push_back(spread_over_ranks(phase, shape, choice_bytes(shape)));
    return all;
}

std::vector<ExpectedBytes> expected_hierarchical(const ExchangeSettings& settings,
                                                 const TrafficShape& shape) {
    if (shape.nodes == 1) return expected_flat(settings, shape);
    const double bytes = choice_bytes(shape);
    std::vector<ExpectedBytes> all;
    for (const std::string_view phase : kPhases)
        all.push_back(sum(across(phase, shape, bytes), within(phase, shape, bytes)));
    return all;
}

std::vector<ExpectedBytes> expected_dedup(const ExchangeSettings& settings, const TrafficShape& shape) {
    if (shape.nodes == 1) return expected_flat(settings, shape);
    const double bytes = choice_bytes(shape);
    const double visits = shape.tokens * share_of_tokens_on_node(shape) * static_cast<double>(shape.nodes);
    const double once = visits * static_cast<double>(shape.row_bytes);
    const double back = settings.reduce_on_node ? once : bytes;
    const double places = shape.tokens * static_cast<double>(shape.choices * (4 + shape.weight_bytes));
    std::vector<ExpectedBytes> all{across(kPlacesPhase, shape, places)};
    for (const std::string_view phase : kPhases) {
        const bool to_experts = phase == kDispatchPhase || phase == kCombineBackwardPhase;
        all.push_back(sum(across(phase, shape, to_experts ? once : back), within(phase, shape, bytes)));
    }
    if (settings.reduce_on_node) {
        ExpectedBytes& line = all[3];  // the weights' gradients come back with the results'
        line = sum(line, across(line.phase, shape,
                                visits * static_cast<double>(shape.choices_on_node() * shape.weight_bytes)));
    }
    return all;
}

std::vector<ExpectedBytes> expected_traffic(const ExchangeSettings& settings, const TrafficShape& shape) {
    for (const ExchangeKind& kind : exchange_table()) {
        if (kind.name == settings.name) return kind.expected(settings, shape);
    }
    MOESAIC_ASSERT(false, "'{}' is no exchange", settings.name);
    return {};
}

}  // namespace moesaic
