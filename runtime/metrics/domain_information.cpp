#include "runtime/metrics/domain_information.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/philox.h"

namespace moesaic {

namespace {

constexpr int kShuffles = 199;

/// [domains, experts]
std::vector<double> table_of(const DomainChoices& choices) {
    std::vector<double> table(choices.names.size() * choices.experts, 0.0);
    for (std::size_t s = 0; s < choices.domains.size(); ++s) {
        double* const row = table.data() + choices.domains[s] * choices.experts;
        const i64* const counts = choices.counts.data() + s * choices.experts;
        for (std::size_t e = 0; e < choices.experts; ++e) row[e] += static_cast<double>(counts[e]);
    }
    return table;
}

}  // namespace

double mutual_information(const DomainChoices& choices) {
    const std::vector<double> table = table_of(choices);
    std::vector<double> of_domain(choices.names.size(), 0.0), of_expert(choices.experts, 0.0);
    double total = 0;
    for (std::size_t i = 0; i < table.size(); ++i) {
        of_domain[i / choices.experts] += table[i];
        of_expert[i % choices.experts] += table[i];
        total += table[i];
    }
    double nats = 0;
    for (std::size_t i = 0; i < table.size(); ++i) {
        if (table[i] == 0) continue;
        const double independent = of_domain[i / choices.experts] * of_expert[i % choices.experts] / total;
        nats += table[i] / total * std::log(table[i] / independent);
    }
    return std::max(0.0, nats);
}

namespace {

DomainExperts without_shuffles(const DomainChoices& choices) {
    DomainExperts result;
    const std::vector<double> table = table_of(choices);
    for (std::size_t domain = 0; domain < choices.names.size(); ++domain) {
        const auto row = table.begin() + static_cast<std::ptrdiff_t>(domain * choices.experts);
        std::vector<double> share(row, row + static_cast<std::ptrdiff_t>(choices.experts));
        double total = 0;
        for (const double count : share) total += count;
        if (total == 0) continue;
        for (double& count : share) count /= total;
        result.share.emplace(choices.names[domain], std::move(share));
    }
    result.mutual_information = mutual_information(choices);
    return result;
}

}  // namespace

std::vector<DomainExperts> domain_experts(std::span<const DomainChoices> layers, u64 seed) {
    std::vector<DomainExperts> results;
    for (const DomainChoices& layer : layers) results.push_back(without_shuffles(layer));
    if (layers.empty()) return results;
    std::vector<std::size_t> shuffled(layers.front().domains.begin(), layers.front().domains.end());
    std::vector<DomainChoices> under_chance(layers.begin(), layers.end());
    for (DomainChoices& layer : under_chance) layer.domains = shuffled;
    const Philox random(seed, "shuffles of domains");
    u64 drawn = 0;
    std::vector<double> as_large(layers.size(), 1.0);
    for (int shuffle = 0; shuffle < kShuffles; ++shuffle) {
        for (std::size_t i = shuffled.size(); i > 1; --i) {
            const auto other = static_cast<std::size_t>(random.uniform(drawn++) * static_cast<double>(i));
            std::swap(shuffled[i - 1], shuffled[std::min(other, i - 1)]);
        }
        for (std::size_t layer = 0; layer < layers.size(); ++layer) {
            const double nats = mutual_information(under_chance[layer]);
            results[layer].shuffled_information += nats / kShuffles;
            if (nats >= results[layer].mutual_information * (1 - 1e-12)) ++as_large[layer];
        }
    }
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
        results[layer].p_value = as_large[layer] / (kShuffles + 1);
    return results;
}

}  // namespace moesaic
