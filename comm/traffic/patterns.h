// The classes behind the table of traffic: decks that deal experts evenly, draws by weight, recorded traces.
#pragma once

#include "comm/traffic/traffic.h"
#include "runtime/base/philox.h"

namespace moesaic {

/// Deals a list of experts evenly: a shuffled deck, over and over, shuffled anew for every block of tokens.
/// Within a block no expert is dealt more than once more than another, and as many cards in a row as the deck
/// has are all different.
class Deck {
  public:
    /// `stream` tells decks apart; `block` counts from 0.
    Deck(std::vector<i32> experts, const Philox& random, u64 block);
    [[nodiscard]] i64 size() const { return std::ssize(cards_); }
    [[nodiscard]] i32 card(i64 position) const {
        return cards_[static_cast<std::size_t>(position % std::ssize(cards_))];
    }

  private:
    std::vector<i32> cards_;
};

/// Every expert gets the same: counts over blocks of lcm(E,K)/K tokens are exact.
class EvenTraffic : public TrafficPattern {
  public:
    using TrafficPattern::TrafficPattern;
    void route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const override;
    std::optional<RankMatrix> rank_bytes(i64 bytes, i64 grain) const override;
};

/// As even, but rank r brings (2r+1)/R of the mean of tokens.
class RaggedTraffic final : public EvenTraffic {
  public:
    using EvenTraffic::EvenTraffic;
    i64 tokens_of_rank(int rank) const override;
    std::optional<RankMatrix> rank_bytes(i64, i64) const override { return {}; }
};

/// A set of hot experts, to which a share of tokens sends as many of its choices as fit; all other choices
/// avoid the set and are dealt evenly. Of tokens [0,T) exactly floor(share T) are hot, evenly spread.
struct HotSet {
    i64 first = 0, count = 1;  ///< experts
    double share = 0;          ///< of tokens
};
class HotSetTraffic : public TrafficPattern {
  public:
    using TrafficPattern::TrafficPattern;
    void route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const override;
    /// In this step and layer.
    [[nodiscard]] virtual HotSet hot_set(i64 step, int layer) const = 0;
    /// Choices that a hot token sends to the set.
    [[nodiscard]] i64 hot_choices(const HotSet& hot) const;

  private:
    void route_block(const HotSet& hot, const Philox& random, i64 block, i64 first, i64 count,
                     std::span<i32> experts) const;
};

/// Draws without replacement by weights of the experts, which may depend on the rank that a token comes from.
class WeightedTraffic : public TrafficPattern {
  public:
    using TrafficPattern::TrafficPattern;
    void route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const override;
    /// [E]; where all that is left has weight 0, the rest is drawn evenly.
    [[nodiscard]] virtual std::vector<double> weights(int layer, int source) const = 0;

  protected:
    /// The rank that a token comes from, by tokens_of_rank.
    [[nodiscard]] int source_of(i64 token) const;
};

/// A trace: row t of a NumPy array of ids [N,K] is token t's choices, over and over.
class TraceTraffic final : public TrafficPattern {
  public:
    TraceTraffic(const PatternShape& shape, std::vector<i32> choices);
    void route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const override;

  private:
    std::vector<i32> choices_;
};

/// Random numbers of one step and layer.
[[nodiscard]] Philox traffic_stream(u64 seed, i64 step, int layer);

}  // namespace moesaic
