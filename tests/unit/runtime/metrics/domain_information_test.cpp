// Do experts follow domains: against a slow oracle, and with the sequence as the unit of chance.
#include "runtime/metrics/domain_information.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/philox.h"

namespace moesaic {
namespace {

const std::vector<std::string> kNames{"novel", "speeches", "optics"};

/// H(domain) + H(expert) - H(domain, expert) of single choices.
double entropy(const std::map<std::vector<std::size_t>, double>& counts) {
    double total = 0, nats = 0;
    for (const auto& [key, count] : counts) total += count;
    for (const auto& [key, count] : counts) nats -= count > 0 ? count / total * std::log(count / total) : 0;
    return nats;
}
double slow_information(const std::vector<i64>& counts, const std::vector<std::size_t>& domains,
                        std::size_t experts) {
    std::map<std::vector<std::size_t>, double> domain, expert, both;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        for (i64 choice = 0; choice < counts[i]; ++choice) {
            ++domain[{domains[i / experts]}];
            ++expert[{i % experts}];
            ++both[{domains[i / experts], i % experts}];
        }
    }
    return entropy(domain) + entropy(expert) - entropy(both);
}

DomainExperts of_layer(const DomainChoices& choices, u64 seed) {
    return domain_experts({&choices, 1}, seed).front();
}

TEST(DomainInformation, EqualsTheEntropiesOfSingleChoices) {
    const Philox random(1, "choices");
    std::vector<i64> counts;
    std::vector<std::size_t> domains;
    for (u64 s = 0; s < 30; ++s) {
        domains.push_back(s % 2);  // the third domain has no sequence
        for (u64 e = 0; e < 5; ++e) counts.push_back(static_cast<i64>(20 * random.uniform(s * 5 + e)));
    }
    std::fill_n(counts.begin() + 10, 5, 0);  // a sequence without choices
    const DomainChoices choices{counts, domains, kNames, 5};
    EXPECT_NEAR(mutual_information(choices), slow_information(counts, domains, 5), 1e-12);
    const DomainExperts result = of_layer(choices, 1);
    ASSERT_EQ(result.share.size(), 2u);
    for (const auto& [name, share] : result.share) {
        double sum = 0;
        for (const double one : share) sum += one;
        EXPECT_NEAR(sum, 1, 1e-12) << name;
    }
}

TEST(DomainInformation, IsAllWhereExpertsAreDomainsAndNoneWhereTheyAreShared) {
    std::vector<i64> apart, alike;
    std::vector<std::size_t> domains;
    for (std::size_t s = 0; s < 24; ++s) {
        domains.push_back(s / 12);
        for (std::size_t e = 0; e < 2; ++e) {
            apart.push_back(e == s / 12 ? 64 : 0);
            alike.push_back(e == 0 ? 40 : 24);
        }
    }
    const DomainExperts far = of_layer({apart, domains, kNames, 2}, 1);
    EXPECT_NEAR(far.mutual_information, std::log(2), 1e-12);
    EXPECT_EQ(far.p_value, 1.0 / 200);
    EXPECT_LT(far.shuffled_information, 0.1);
    EXPECT_EQ(far.share.at("novel"), (std::vector<double>{1, 0}));
    const DomainChoices layers[] = {{alike, domains, kNames, 2}, {apart, domains, kNames, 2}};
    const DomainExperts second = domain_experts(layers, 1).back();
    EXPECT_EQ(second.p_value, far.p_value) << "a layer's shuffles do not depend on the others";
    EXPECT_EQ(second.shuffled_information, far.shuffled_information);
    const DomainExperts near = of_layer({alike, domains, kNames, 2}, 1);
    EXPECT_EQ(near.mutual_information, 0);
    EXPECT_EQ(near.p_value, 1);
}

TEST(DomainInformation, TokensOfOneSequenceAreOneWitness) {
    // Every sequence has a favourite, whatever its domain: thousands of tokens, but 16 sequences.
    int significant = 0;
    for (u64 seed = 0; seed < 40; ++seed) {
        const Philox random(seed, "favourites");
        std::vector<i64> counts;
        std::vector<std::size_t> domains;
        for (u64 s = 0; s < 16; ++s) {
            domains.push_back(s % 2);
            const bool favourite = random.uniform(s) < 0.5;
            counts.push_back(favourite ? 900 : 100);
            counts.push_back(favourite ? 100 : 900);
        }
        if (of_layer({counts, domains, kNames, 2}, seed).p_value <= 0.05) ++significant;
    }
    EXPECT_LE(significant, 2 + 5) << "one in twenty by chance";
}

}  // namespace
}  // namespace moesaic
