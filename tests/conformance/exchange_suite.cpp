#include "tests/conformance/exchange_suite.h"
#include "runtime/base/worse.h"

#include "tests/support/exchange_bench.h"

namespace moesaic::conformance {

namespace {

constexpr double kRounding = 1e-13;  // f64: of sums in another order

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        largest = worse(largest, std::abs(a[i] - b[i]) / (1 + std::abs(b[i])));
    return largest;
}

void compare(const ExchangeSeen& seen, const ExchangeSeen& expected, bool sums_in_order,
             const std::string& where, Failures& failures) {
    const double sums = sums_in_order ? 0 : kRounding;
    const auto expect = [&](std::string_view what, const std::vector<double>& mine,
                            const std::vector<double>& oracle, double tolerance) {
        const double difference = largest_difference(mine, oracle);
        failures.expect(difference <= tolerance, "{}: {} differs by {}", where, what, difference);
    };
    expect("rows", seen.rows, expected.rows, 0);
    expect("gradients of results", seen.d_results, expected.d_results, 0);
    expect("y", seen.y, expected.y, sums);
    expect("dx", seen.dx, expected.dx, sums);
    expect("d_weight", seen.d_weight, expected.d_weight, kRounding);
}

/// Collective over the world of `setup`. Of one expert a rank, rounds take a rank's own rows first.
void check_capacity(RankSetup& setup, int experts, i64 capacity, const std::string& nodes,
                    Failures& failures) {
    const int ranks = setup.mesh.experts().size();
    for (const RoutingCase& routing : routing_cases(ranks, experts)) {
        const ExchangeSeen expected = oracle(routing, setup.mesh.experts().rank());
        for (const ExchangeSettings& settings : exchange_variants()) {
            const std::string where =
                fmt::format("{}{}, '{}', {} experts, {}, capacity {}", settings.name,
                            settings.reduce_on_node ? " (node)" : "", routing.name, experts, nodes, capacity);
            exchange_detail::ExchangeBench bench(setup, settings, routing, capacity, experts == ranks);
            compare(bench.there_and_back(), expected, !settings.reduce_on_node, where, failures);
        }
    }
}

}  // namespace

void check_exchanges(Communicator& world, StreamMode mode, Failures& failures) {
    const int ranks = world.size();
    for (int per_node = ranks; per_node >= 1; --per_node) {
        if (ranks % per_node != 0) continue;
        const std::string nodes = fmt::format("{} ranks a node", per_node);
        for (const int experts : {2 * ranks, ranks}) {
            RankSetup setup(world, ranks, experts, {mode, 5}, per_node);
            check_capacity(setup, experts, 5, nodes, failures);
            if (experts > ranks) check_capacity(setup, experts, 1000, nodes, failures);
        }
    }
}

}  // namespace moesaic::conformance
