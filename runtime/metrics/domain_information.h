// Do experts follow domains? Shares of a domain's choices by expert, and their mutual information.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/metrics/records.h"

namespace moesaic {

/// Choices of one layer by sequence and expert, and which domain a sequence is of.
struct DomainChoices {
    std::span<const i64> counts;           ///< [sequences, experts]
    std::span<const std::size_t> domains;  ///< [sequences]
    std::span<const std::string> names;    ///< of domains
    std::size_t experts = 0;
};

/// Mutual information of domain and expert of a choice, nats: 0 where every domain's choices are shared out
/// alike, at most the smaller of the two entropies. Biased upwards by chance: compare with
/// shuffled_information.
[[nodiscard]] double mutual_information(const DomainChoices& choices);

/// Of every layer; all have the same domains, and `layer` is left to the caller. The p-value is that of a
/// permutation test with the sequence as the unit, as tokens of a sequence choose alike: domains are shuffled
/// among sequences 199 times, in orders that follow from `seed` and are every layer's, and p = (1 + shuffles
/// with as much information) / 200. Domains without a choice are left out.
[[nodiscard]] std::vector<DomainExperts> domain_experts(std::span<const DomainChoices> layers, u64 seed);

}  // namespace moesaic
