// The table of traffic by name, and what each name makes.
#include <algorithm>
#include <cmath>

#include "comm/traffic/patterns.h"
#include "runtime/base/error.h"
#include "runtime/data/npy.h"

namespace moesaic {

namespace {

/// Experts of a stated rank.
HotSet experts_of(const PatternShape& shape, i64 rank, double share) {
    const i64 each = shape.experts / shape.ranks;
    return {rank * each, each, share};
}

class HotExpert final : public HotSetTraffic {
  public:
    HotExpert(const PatternShape& shape, double share, i64 expert)
        : HotSetTraffic(shape), hot_{expert, 1, share} {}
    HotSet hot_set(i64, int) const override { return hot_; }

  private:
    HotSet hot_;
};

class HotRank final : public HotSetTraffic {
  public:
    HotRank(const PatternShape& shape, double share, i64 rank)
        : HotSetTraffic(shape), hot_(experts_of(shape, rank, share)) {}
    HotSet hot_set(i64, int) const override { return hot_; }

  private:
    HotSet hot_;
};

class EmptyRank final : public HotSetTraffic {
  public:
    EmptyRank(const PatternShape& shape, i64 rank)
        : HotSetTraffic(shape), avoided_(experts_of(shape, rank, 0)), rank_(static_cast<int>(rank)) {}
    HotSet hot_set(i64, int) const override { return avoided_; }
    i64 tokens_of_rank(int rank) const override { return rank == rank_ ? 0 : shape().tokens_per_rank; }

  private:
    HotSet avoided_;
    int rank_;
};

class Rotating final : public HotSetTraffic {
  public:
    Rotating(const PatternShape& shape, double share) : HotSetTraffic(shape), share_(share) {}
    HotSet hot_set(i64 step, int layer) const override {
        return {(step + layer) % shape().experts, 1, share_};
    }
    i64 period() const override { return shape().experts; }

  private:
    double share_;
};

class Burst final : public HotSetTraffic {
  public:
    Burst(const PatternShape& shape, double share, i64 period)
        : HotSetTraffic(shape), calm_(shape), share_(share), period_(period) {}
    HotSet hot_set(i64, int) const override { return {0, 1, share_}; }
    void route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const override {
        if (step % period_ == 0) {
            HotSetTraffic::route(step, layer, first, count, experts);
        } else {
            calm_.route(step, layer, first, count, experts);
        }
    }
    i64 period() const override { return period_; }

  private:
    EvenTraffic calm_;
    double share_;
    i64 period_;
};

/// Expert e has weight (e+1)^-s.
class Zipf final : public WeightedTraffic {
  public:
    Zipf(const PatternShape& shape, double exponent) : WeightedTraffic(shape), exponent_(exponent) {}
    std::vector<double> weights(int, int) const override {
        std::vector<double> weight;
        for (i64 e = 0; e < shape().experts; ++e)
            weight.push_back(std::pow(static_cast<double>(e + 1), -exponent_));
        return weight;
    }

  private:
    double exponent_;
};

/// Expert e has weight exp(s z), z standard normal by (seed, layer, e).
class LogNormal final : public WeightedTraffic {
  public:
    LogNormal(const PatternShape& shape, double sigma) : WeightedTraffic(shape), sigma_(sigma) {}
    std::vector<double> weights(int layer, int) const override {
        const Philox random(shape().seed, fmt::format("traffic, popularity, layer {}", layer));
        std::vector<double> weight;
        for (i64 e = 0; e < shape().experts; ++e)
            weight.push_back(std::exp(sigma_ * random.normal(static_cast<u64>(e))));
        return weight;
    }

  private:
    double sigma_;
};

/// Between ranks as nccl-tests' generated pattern: rank i's share for rank j grows with (j - i) mod R.
class Spread final : public WeightedTraffic {
  public:
    Spread(const PatternShape& shape, double spread) : WeightedTraffic(shape), spread_(spread) {}
    std::vector<double> weights(int, int source) const override {
        std::vector<double> weight;
        const i64 each = shape().experts / shape().ranks;
        for (i64 e = 0; e < shape().experts; ++e) weight.push_back(share(source, static_cast<int>(e / each)));
        return weight;
    }
    std::optional<RankMatrix> rank_bytes(i64 bytes, i64 grain) const override {
        const int ranks = shape().ranks;
        RankMatrix matrix{ranks, {}};
        const i64 total = bytes / ranks / grain * grain * ranks;
        for (int i = 0; i < ranks; ++i) {
            for (int j = 0; j < ranks; ++j)
                matrix.amount.push_back(static_cast<i64>(share(i, j) * static_cast<double>(total)) / grain *
                                        grain);
        }
        return matrix;
    }

  private:
    [[nodiscard]] double share(int from, int to) const {
        const double ranks = shape().ranks;
        if (shape().ranks == 1) return 1;
        const int distance = (to - from + shape().ranks) % shape().ranks;
        return (1 - spread_) / ranks + spread_ * distance / (ranks * (ranks - 1) / 2);
    }
    double spread_;
};

/// A matrix of bytes between ranks: as it stands where ranks exchange bytes, and as weights of routing.
class MatrixTraffic final : public WeightedTraffic {
  public:
    MatrixTraffic(const PatternShape& shape, RankMatrix bytes)
        : WeightedTraffic(shape), bytes_(std::move(bytes)) {}
    std::vector<double> weights(int, int source) const override {
        std::vector<double> weight;
        const i64 each = shape().experts / shape().ranks;
        for (i64 e = 0; e < shape().experts; ++e)
            weight.push_back(static_cast<double>(bytes_.at(source, static_cast<int>(e / each))));
        return weight;
    }
    i64 tokens_of_rank(int rank) const override {
        double before = 0, mine = 0, all = 0;
        for (int r = 0; r < shape().ranks; ++r) {
            const auto sent = static_cast<double>(bytes_.sent_by(r));
            all += sent;
            if (r < rank) before += sent;
            if (r == rank) mine = sent;
        }
        const auto tokens = static_cast<double>(shape().tokens_per_rank * shape().ranks);
        const auto boundary = [&](double sent) {
            return static_cast<i64>(std::floor(tokens * (sent / all)));
        };
        return boundary(before + mine) - boundary(before);
    }
    std::optional<RankMatrix> rank_bytes(i64 bytes, i64 grain) const override {
        const double scale = static_cast<double>(bytes) / static_cast<double>(bytes_.busiest());
        RankMatrix scaled = bytes_;
        for (i64& one : scaled.amount)
            one = (bytes == bytes_.busiest() ? one : static_cast<i64>(scale * static_cast<double>(one))) /
                  grain * grain;
        return scaled;
    }
    i64 natural_bytes() const override { return bytes_.busiest(); }

  private:
    RankMatrix bytes_;
};

using Made = std::unique_ptr<TrafficPattern>;
using Spec = TrafficSpec;
using At = PatternShape;

void refuse(bool good, const std::string& text) {
    if (!good) throw UserError(text);
}

void need_room(const Spec& spec, const At& shape, i64 hot, double share) {
    const i64 outside = shape.experts - hot;
    const bool fits =
        share >= 1 ? shape.top_k - std::min(shape.top_k, hot) <= outside : shape.top_k <= outside;
    refuse(fits,
           fmt::format("traffic {}: a token cannot choose {} of the {} other experts; a smaller top_k or "
                       "more experts",
                       spec.kind->name, shape.top_k, outside));
}

Made make_hot_expert(const Spec& spec, const At& shape) {
    const auto expert = static_cast<i64>(spec.values[1]);
    refuse(expert < shape.experts,
           fmt::format("traffic hot_expert: expert {} of {}; experts count from 0", expert, shape.experts));
    need_room(spec, shape, 1, spec.values[0]);
    return std::make_unique<HotExpert>(shape, spec.values[0], expert);
}

i64 stated_rank(const Spec& spec, const At& shape, double value) {
    const auto rank = static_cast<i64>(value);
    refuse(rank < shape.ranks,
           fmt::format("traffic {}: rank {} of {}; ranks count from 0", spec.kind->name, rank, shape.ranks));
    return rank;
}

Made make_matrix(const Spec& spec, const At& shape) {
    RankMatrix all = read_rank_matrix(spec.file);
    refuse(all.ranks >= shape.ranks,
           fmt::format("{}: a matrix of {} ranks for {}; at most as many ranks as rows", spec.file, all.ranks,
                       shape.ranks));
    RankMatrix bytes{shape.ranks, {}};  // of a larger matrix the first ranks, as nccl-tests does
    for (int i = 0; i < shape.ranks; ++i) {
        for (int j = 0; j < shape.ranks; ++j) bytes.amount.push_back(all.at(i, j));
    }
    refuse(bytes.busiest() > 0, spec.file + ": no rank sends anything");
    return std::make_unique<MatrixTraffic>(shape, std::move(bytes));
}

Made make_trace(const Spec& spec, const At& shape) {
    const TokenRows rows = read_token_rows(spec.file);
    refuse(rows.columns == shape.top_k && rows.rows > 0,
           fmt::format("{}: {} x {} ids, where every row is to have the top_k of {}", spec.file, rows.rows,
                       rows.columns, shape.top_k));
    for (i64 row = 0; row < rows.rows; ++row) {
        const auto begin = rows.ids.begin() + row * rows.columns, end = begin + rows.columns;
        for (auto id = begin; id != end; ++id) {
            refuse(*id >= 0 && *id < shape.experts,
                   fmt::format("{}: row {}: expert {} of {}", spec.file, row, *id, shape.experts));
            refuse(std::count(begin, end, *id) == 1,
                   fmt::format("{}: row {} has expert {} twice", spec.file, row, *id));
        }
    }
    return std::make_unique<TraceTraffic>(shape, rows.ids);
}

template <class Kind>
Made make_plain(const Spec&, const At& shape) {
    return std::make_unique<Kind>(shape);
}

/// For kinds with one value that any shape allows.
template <class Kind>
Made make_valued(const Spec& spec, const At& shape) {
    return std::make_unique<Kind>(shape, spec.values[0]);
}

Made make_random(const Spec&, const At& shape) {
    return std::make_unique<Zipf>(shape, 0.0);
}

Made make_hot_rank(const Spec& spec, const At& shape) {
    const i64 rank = stated_rank(spec, shape, spec.values[1]);
    need_room(spec, shape, shape.experts / shape.ranks, spec.values[0]);
    return std::make_unique<HotRank>(shape, spec.values[0], rank);
}

Made make_empty_rank(const Spec& spec, const At& shape) {
    const i64 rank = stated_rank(spec, shape, spec.values[0]);
    need_room(spec, shape, shape.experts / shape.ranks, 0);
    return std::make_unique<EmptyRank>(shape, rank);
}

Made make_rotating(const Spec& spec, const At& shape) {
    need_room(spec, shape, 1, spec.values[0]);
    return std::make_unique<Rotating>(shape, spec.values[0]);
}

Made make_burst(const Spec& spec, const At& shape) {
    need_room(spec, shape, 1, spec.values[0]);
    return std::make_unique<Burst>(shape, spec.values[0], static_cast<i64>(spec.values[1]));
}

constexpr bool kFile = true, kByRanks = true;

}  // namespace

const std::vector<TrafficKind>& traffic_table() {
    static const TrafficParameter share{"share", 0, 1, 0.5}, rank{"rank", 0, 1 << 20, 0, true},
        expert{"expert", 0, 1 << 20, 0, true}, period{"period", 2, 1 << 20, 4, true}, scale{"S", 0, 20, 1},
        mix{"S", 0, 1, 1};
    static const std::vector<TrafficKind> table{
        {"uniform", "every expert the same", {}, !kFile, !kByRanks, make_plain<EvenTraffic>},
        {"random", "drawn, all experts alike", {}, !kFile, !kByRanks, make_random},
        {"zipf", "drawn, expert e with weight (e+1)^-S", {scale}, !kFile, !kByRanks, make_valued<Zipf>},
        {"lognormal", "drawn, weights exp(S normal)", {scale}, !kFile, !kByRanks, make_valued<LogNormal>},
        {"hot_expert",
         "one expert gets a share of tokens",
         {share, expert},
         !kFile,
         !kByRanks,
         make_hot_expert},
        {"hot_rank",
         "one rank's experts get a share of tokens",
         {share, rank},
         !kFile,
         kByRanks,
         make_hot_rank},
        {"ragged", "rank r brings (2r+1)/R of the mean", {}, !kFile, kByRanks, make_plain<RaggedTraffic>},
        {"empty_rank", "one rank brings and gets nothing", {rank}, !kFile, kByRanks, make_empty_rank},
        {"rotating", "a hot expert, in every step another", {share}, !kFile, !kByRanks, make_rotating},
        {"burst", "a hot expert in every period-th step", {share, period}, !kFile, !kByRanks, make_burst},
        {"spread",
         "nccl-tests' pattern, 0 even, 1 by distance",
         {mix},
         !kFile,
         kByRanks,
         make_valued<Spread>},
        {"matrix", "bytes between ranks from a file", {}, kFile, kByRanks, make_matrix},
        {"trace", "choices from a NumPy array [tokens, top_k]", {}, kFile, !kByRanks, make_trace},
    };
    return table;
}

}  // namespace moesaic
