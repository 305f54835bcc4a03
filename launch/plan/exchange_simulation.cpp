#include "launch/plan/exchange_simulation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>

namespace moesaic {

namespace {

constexpr i64 kMostChoicesDrawn = i64{1} << 20;

/// When the ports of one rank are free again, by link: of the node, of the network.
struct Ports {
    double sends[2] = {0, 0}, receives[2] = {0, 0};
};

/// A rank that wants to send its next message over a link at `time`.
struct Wish {
    double time;
    int rank, link;
    bool operator>(const Wish& other) const {
        return std::tie(time, rank, link) > std::tie(other.time, other.rank, other.link);
    }
};

class Simulation {
  public:
    Simulation(const RankMatrix& bytes, int ranks_per_node, const LinkProfile& node,
               const LinkProfile& network)
        : bytes_(bytes),
          ranks_per_node_(ranks_per_node),
          links_{node, network},
          ports_(static_cast<std::size_t>(bytes.ranks)),
          next_(static_cast<std::size_t>(2 * bytes.ranks), 1) {}

    double run() {
        for (int rank = 0; rank < bytes_.ranks; ++rank) {
            for (const int link : {0, 1}) ask(rank, link, 0);
        }
        while (!wishes_.empty()) {
            const Wish wish = wishes_.top();
            wishes_.pop();
            send(wish);
        }
        return end_;
    }

  private:
    int& next_of(int rank, int link) { return next_[static_cast<std::size_t>(2 * rank + link)]; }
    int link_to(int from, int to) const { return from / ranks_per_node_ == to / ranks_per_node_ ? 0 : 1; }
    int peer(int rank, int distance) const { return (rank + distance) % bytes_.ranks; }

    /// The next message of this rank over this link, if there is any.
    void ask(int rank, int link, double time) {
        int& distance = next_of(rank, link);
        while (distance < bytes_.ranks &&
               (link_to(rank, peer(rank, distance)) != link || bytes_.at(rank, peer(rank, distance)) == 0))
            ++distance;
        if (distance < bytes_.ranks) wishes_.push({time, rank, link});
    }

    void send(const Wish& wish) {
        const int to = peer(wish.rank, next_of(wish.rank, wish.link));
        Ports& sender = ports_[static_cast<std::size_t>(wish.rank)];
        Ports& receiver = ports_[static_cast<std::size_t>(to)];
        const double free = std::max(sender.sends[wish.link], receiver.receives[wish.link]);
        if (free > wish.time) {  // later: others that are ready go first
            wishes_.push({free, wish.rank, wish.link});
            return;
        }
        const LinkProfile& link = links_[wish.link];
        const double ended = wish.time + 1e-6 * link.latency_us +
                             static_cast<double>(bytes_.at(wish.rank, to)) / (1e9 * link.gb_per_s);
        sender.sends[wish.link] = receiver.receives[wish.link] = ended;
        end_ = std::max(end_, ended);
        ++next_of(wish.rank, wish.link);
        ask(wish.rank, wish.link, ended);
    }

    const RankMatrix& bytes_;
    int ranks_per_node_;
    LinkProfile links_[2];
    std::vector<Ports> ports_;
    std::vector<int> next_;  // [ranks, links] distance to the peer that is next
    std::priority_queue<Wish, std::vector<Wish>, std::greater<>> wishes_;
    double end_ = 0;
};

RankMatrix transposed(const RankMatrix& matrix) {
    RankMatrix turned{matrix.ranks, std::vector<i64>(matrix.amount.size())};
    for (int from = 0; from < matrix.ranks; ++from) {
        for (int to = 0; to < matrix.ranks; ++to)
            turned.amount[static_cast<std::size_t>(to * matrix.ranks + from)] = matrix.at(from, to);
    }
    return turned;
}

RankMatrix scaled(const RankMatrix& rows, double factor) {
    RankMatrix bytes = rows;
    for (i64& amount : bytes.amount) amount = std::llround(static_cast<double>(amount) * factor);
    return bytes;
}

/// The two hops of a dispatch by nodes: to the partner on the expert's node, from there to its rank.
/// `once`: a token that has several choices on a node takes the first hop once.
std::pair<RankMatrix, RankMatrix> two_hops(const RoutedRows& rows, int ranks_per_node, bool once) {
    const int ranks = rows.choices.ranks, nodes = ranks / ranks_per_node;
    RankMatrix across{ranks, std::vector<i64>(rows.choices.amount.size())};
    RankMatrix within = across;
    const auto at = [&](RankMatrix& matrix, int from, int to) -> i64& {
        return matrix.amount[static_cast<std::size_t>(from * ranks + to)];
    };
    for (int from = 0; from < ranks; ++from) {
        for (int node = 0; node < nodes; ++node) {
            const int partner = node * ranks_per_node + from % ranks_per_node;
            for (int local = 0; local < ranks_per_node; ++local) {
                const int to = node * ranks_per_node + local;
                at(within, partner, to) += rows.choices.at(from, to);
                if (!once) at(across, from, partner) += rows.choices.at(from, to);
            }
            if (once)
                at(across, from, partner) += rows.to_nodes[static_cast<std::size_t>(from * nodes + node)];
        }
    }
    return {across, within};
}

SimulatedExchange sum(SimulatedExchange a, const SimulatedExchange& b, double times) {
    a.seconds += times * b.seconds;
    a.self_bytes += static_cast<i64>(times) * b.self_bytes;
    a.same_node_bytes += static_cast<i64>(times) * b.same_node_bytes;
    a.cross_node_bytes += static_cast<i64>(times) * b.cross_node_bytes;
    a.busiest_over_mean = std::max(a.busiest_over_mean, b.busiest_over_mean);
    return a;
}

}  // namespace

SimulatedExchange simulate_exchange(const RankMatrix& bytes, int ranks_per_node, const LinkProfile& node,
                                    const LinkProfile& network) {
    SimulatedExchange result;
    i64 busiest = 0;
    for (int from = 0; from < bytes.ranks; ++from) {
        busiest = std::max(busiest, bytes.received_by(from));
        for (int to = 0; to < bytes.ranks; ++to) {
            i64& place = from == to                                     ? result.self_bytes
                         : from / ranks_per_node == to / ranks_per_node ? result.same_node_bytes
                                                                        : result.cross_node_bytes;
            place += bytes.at(from, to);
        }
    }
    const i64 all = result.self_bytes + result.same_node_bytes + result.cross_node_bytes;
    if (all > 0)
        result.busiest_over_mean = static_cast<double>(busiest) * bytes.ranks / static_cast<double>(all);
    result.seconds = Simulation(bytes, ranks_per_node, node, network).run();
    return result;
}

double RoutedRows::fullest_over_mean() const {
    const i64 all = std::reduce(received.begin(), received.end());
    if (all == 0) return 1;
    return static_cast<double>(*std::ranges::max_element(received)) * static_cast<double>(received.size()) /
           static_cast<double>(all);
}

RoutedRows route_rows(const std::string& traffic, const PatternShape& shape, int ranks_per_node) {
    PatternShape drawn = shape;
    const i64 choices = shape.ranks * shape.tokens_per_rank * shape.top_k;
    RoutedRows rows;
    if (choices > kMostChoicesDrawn)
        drawn.tokens_per_rank = std::max<i64>(1, kMostChoicesDrawn / (shape.ranks * shape.top_k));
    rows.scale = static_cast<double>(shape.tokens_per_rank) / static_cast<double>(drawn.tokens_per_rank);
    const auto pattern = make_traffic(traffic, drawn);
    const int nodes = std::max(1, shape.ranks / ranks_per_node);
    rows.choices = {shape.ranks, std::vector<i64>(static_cast<std::size_t>(shape.ranks) *
                                                  static_cast<std::size_t>(shape.ranks))};
    rows.to_nodes.assign(static_cast<std::size_t>(shape.ranks * nodes), 0);
    rows.received.assign(static_cast<std::size_t>(shape.ranks), 0);
    const i64 each = shape.experts / shape.ranks;
    std::vector<i32> experts(static_cast<std::size_t>(drawn.tokens_per_rank * shape.top_k));
    for (int from = 0; from < shape.ranks; ++from) {
        pattern->route(1, 0, from * drawn.tokens_per_rank, drawn.tokens_per_rank, experts);
        std::vector<i64> last_token(static_cast<std::size_t>(nodes), -1);
        for (std::size_t i = 0; i < experts.size(); ++i) {
            const int to = static_cast<int>(experts[i] / each), node = to / ranks_per_node;
            ++rows.choices.amount[static_cast<std::size_t>(from * shape.ranks + to)];
            ++rows.received[static_cast<std::size_t>(to)];
            const i64 token = static_cast<i64>(i) / shape.top_k;
            if (std::exchange(last_token[static_cast<std::size_t>(node)], token) != token)
                ++rows.to_nodes[static_cast<std::size_t>(from * nodes + node)];
        }
    }
    return rows;
}

SimulatedExchange simulate_layer(std::string_view name, const RoutedRows& rows, i64 row_bytes,
                                 int ranks_per_node, const DeviceProfile& device) {
    const double factor = rows.scale * static_cast<double>(row_bytes);
    const auto hop = [&](const RankMatrix& matrix, SimulatedExchange so_far) {
        for (const RankMatrix& one : {matrix, transposed(matrix)})
            so_far =
                sum(so_far,
                    simulate_exchange(scaled(one, factor), ranks_per_node, device.node, device.network), 2);
        return so_far;
    };
    const bool by_nodes = name == "hierarchical" || name == "dedup";
    if (!by_nodes || rows.choices.ranks <= ranks_per_node) return hop(rows.choices, {});
    const auto [across, within] = two_hops(rows, ranks_per_node, false);
    if (name == "hierarchical") return hop(within, hop(across, {}));
    // Every choice's own row comes back, and goes out in the adjoint of dispatch: exact, not summed.
    const RankMatrix once = two_hops(rows, ranks_per_node, true).first;
    SimulatedExchange all = hop(within, {});
    for (const RankMatrix& one : {once, transposed(across)})
        all =
            sum(all, simulate_exchange(scaled(one, factor), ranks_per_node, device.node, device.network), 2);
    return all;
}

}  // namespace moesaic
