#include "comm/traffic/patterns.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/error.h"

namespace moesaic {

Philox traffic_stream(u64 seed, i64 step, int layer) {
    return {seed, fmt::format("traffic, step {}, layer {}", step, layer)};
}

Deck::Deck(std::vector<i32> experts, const Philox& random, u64 block) : cards_(std::move(experts)) {
    const u64 counter = block * cards_.size();
    for (std::size_t left = cards_.size(); left > 1; --left) {  // Fisher and Yates
        const double u = random.uniform(counter + left - 1);
        std::swap(cards_[left - 1], cards_[static_cast<std::size_t>(u * static_cast<double>(left))]);
    }
}

void EvenTraffic::route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const {
    const i64 all = shape().experts, choices = shape().top_k;
    const i64 block_tokens = std::lcm(all, choices) / choices;
    const Philox random = traffic_stream(shape().seed, step, layer);
    std::vector<i32> in_order(static_cast<std::size_t>(all));
    std::iota(in_order.begin(), in_order.end(), 0);
    auto out = experts.begin();
    for (i64 token = first; token < first + count;) {
        const i64 block = token / block_tokens;
        const Deck deck(in_order, random, static_cast<u64>(block));
        const i64 end = std::min(first + count, (block + 1) * block_tokens);
        for (; token < end; ++token) {
            const i64 position = (token - block * block_tokens) * choices;
            for (i64 k = 0; k < choices; ++k) *out++ = deck.card(position + k);
        }
    }
}

std::optional<RankMatrix> EvenTraffic::rank_bytes(i64 bytes, i64 grain) const {
    const int ranks = shape().ranks;
    const i64 each = bytes / ranks / grain * grain;
    return RankMatrix{ranks, std::vector<i64>(static_cast<std::size_t>(ranks * ranks), each)};
}

i64 RaggedTraffic::tokens_of_rank(int rank) const {
    const i64 ranks = shape().ranks;  // first_token(r) = tokens r^2 / R
    const auto boundary = [&](i64 r) { return shape().tokens_per_rank * r * r / ranks; };
    return boundary(rank + 1) - boundary(rank);
}

i64 HotSetTraffic::hot_choices(const HotSet& hot) const {
    return std::min(shape().top_k, hot.count);
}

void HotSetTraffic::route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const {
    const HotSet hot = hot_set(step, layer);
    const Philox random = traffic_stream(shape().seed, step, layer);
    const i64 block_tokens = shape().experts;
    for (i64 token = first; token < first + count;) {
        const i64 block = token / block_tokens;
        const i64 end = std::min(first + count, (block + 1) * block_tokens);
        route_block(hot, random, block, token, end - token,
                    experts.subspan(static_cast<std::size_t>((token - first) * shape().top_k)));
        token = end;
    }
}

void HotSetTraffic::route_block(const HotSet& hot, const Philox& random, i64 block, i64 first, i64 count,
                                std::span<i32> experts) const {
    std::vector<i32> inside, outside;
    for (i64 expert = 0; expert < shape().experts; ++expert) {
        const bool is_hot = expert >= hot.first && expert < hot.first + hot.count;
        (is_hot ? inside : outside).push_back(static_cast<i32>(expert));
    }
    const Deck hot_deck(std::move(inside), random, static_cast<u64>(2 * block));
    const Deck cold_deck(std::move(outside), random, static_cast<u64>(2 * block + 1));
    const auto hot_before = [&](i64 token) {
        return static_cast<i64>(std::floor(static_cast<double>(token) * hot.share));
    };
    const i64 start = block * shape().experts, choices = shape().top_k, to_set = hot_choices(hot);
    auto out = experts.begin();
    for (i64 token = first; token < first + count; ++token) {
        const i64 hot_dealt = (hot_before(token) - hot_before(start)) * to_set;
        const i64 cold_dealt = (token - start) * choices - hot_dealt;
        const i64 to_hot = hot_before(token + 1) > hot_before(token) ? to_set : 0;
        for (i64 k = 0; k < to_hot; ++k) *out++ = hot_deck.card(hot_dealt + k);
        for (i64 k = 0; k < choices - to_hot; ++k) *out++ = cold_deck.card(cold_dealt + k);
    }
}

int WeightedTraffic::source_of(i64 token) const {
    i64 all = 0;
    for (int rank = 0; rank < shape().ranks; ++rank) all += tokens_of_rank(rank);
    i64 left = all > 0 ? token % all : 0;
    for (int rank = 0; rank < shape().ranks; ++rank) {
        left -= tokens_of_rank(rank);
        if (left < 0) return rank;
    }
    return 0;
}

void WeightedTraffic::route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const {
    const Philox random = traffic_stream(shape().seed, step, layer);
    const i64 choices = shape().top_k;
    std::vector<double> weight, left;
    int source = -1;
    auto out = experts.begin();
    for (i64 token = first; token < first + count; ++token) {
        if (const int from = source_of(token); from != source) {
            source = from;
            weight = weights(layer, source);
        }
        left = weight;
        for (i64 k = 0; k < choices; ++k) {
            double sum = std::accumulate(left.begin(), left.end(), 0.0);
            if (sum <= 0) {  // evenly over those that were not taken
                for (double& one : left) one = 1;
                for (auto taken = out - k; taken != out; ++taken) left[static_cast<std::size_t>(*taken)] = 0;
                sum = std::accumulate(left.begin(), left.end(), 0.0);
            }
            double rest = random.uniform(static_cast<u64>(token * choices + k)) * sum;
            std::size_t expert = left.size();
            for (std::size_t e = 0; e < left.size() && (rest >= 0 || expert == left.size()); ++e) {
                if (left[e] <= 0) continue;
                expert = e;  // the last with any weight, where rounding leaves a rest
                rest -= left[e];
            }
            *out++ = static_cast<i32>(expert);
            left[expert] = 0;
        }
    }
}

TraceTraffic::TraceTraffic(const PatternShape& shape, std::vector<i32> choices)
    : TrafficPattern(shape), choices_(std::move(choices)) {}

void TraceTraffic::route(i64, int, i64 first, i64 count, std::span<i32> experts) const {
    const i64 rows = std::ssize(choices_) / shape().top_k;
    for (i64 i = 0; i < count; ++i) {
        std::copy_n(choices_.begin() + (first + i) % rows * shape().top_k, shape().top_k,
                    experts.begin() + i * shape().top_k);
    }
}

}  // namespace moesaic
