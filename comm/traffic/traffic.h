// The traffic zoo: seeded generators of routing decisions, for benchmarks and for training under forced
// traffic.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// What a pattern is asked for. Patterns shaped by ranks are functions of a *stated* number of ranks, which a
/// benchmark sets to its world and a trainer states ("hot_rank:0.5,ranks=4"), never of the ranks that run.
/// Rank r of them holds experts [r E/R, (r+1) E/R).
struct PatternShape {
    i64 experts = 1;          ///< E, a multiple of ranks for patterns shaped by ranks
    i64 top_k = 1;            ///< K
    int ranks = 1;            ///< R
    i64 tokens_per_rank = 1;  ///< mean; a trainer passes the tokens of a micro-batch
    u64 seed = 1;
};

/// Bytes or rows that rank i sends to rank j, at [i * ranks + j]. The file format is nccl-tests'.
struct RankMatrix {
    int ranks = 0;
    std::vector<i64> amount;
    [[nodiscard]] i64 at(int from, int to) const {
        return amount[static_cast<std::size_t>(from * ranks + to)];
    }
    [[nodiscard]] i64 sent_by(int rank) const;
    [[nodiscard]] i64 received_by(int rank) const;
    /// The most that one rank sends or receives.
    [[nodiscard]] i64 busiest() const;
};

/// One pattern with its parameters. Decisions are a function of (seed, step, layer, token) alone, where
/// tokens count over the global batch.
class TrafficPattern {
  public:
    explicit TrafficPattern(const PatternShape& shape) : shape_(shape) {}
    virtual ~TrafficPattern() = default;
    TrafficPattern(const TrafficPattern&) = delete;
    TrafficPattern& operator=(const TrafficPattern&) = delete;

    [[nodiscard]] const PatternShape& shape() const { return shape_; }
    /// The experts [count,K] of tokens first, first + 1, ...: K different ones each, the first choice first.
    virtual void route(i64 step, int layer, i64 first, i64 count, std::span<i32> experts) const = 0;
    /// After how many steps it repeats itself; 1: every step is alike, or differs by chance only.
    [[nodiscard]] virtual i64 period() const { return 1; }
    /// Tokens that a rank brings, where the benchmark decides: R * tokens_per_rank in all, but for ranks that
    /// the pattern leaves empty. Rank r's are those after the tokens of ranks 0..r-1.
    [[nodiscard]] virtual i64 tokens_of_rank(int rank) const;
    /// What ranks send each other where the pattern says so itself, at most `bytes` of the busiest rank,
    /// every entry a multiple of `grain`; nothing where routing decides.
    [[nodiscard]] virtual std::optional<RankMatrix> rank_bytes(i64 bytes, i64 grain) const;
    /// The bytes that a matrix file gives; 0 for all other patterns.
    [[nodiscard]] virtual i64 natural_bytes() const { return 0; }

    /// First token of a rank in a benchmark.
    [[nodiscard]] i64 first_token(int rank) const;

  private:
    PatternShape shape_;
};

/// Rows that each rank sends to each in `step`, counted from the routing of all ranks' tokens.
[[nodiscard]] RankMatrix count_rows(const TrafficPattern& traffic, i64 step, int layer);

// ------------------------------------------------------------ by name

/// A parameter as it is written: "zipf:1.2" gives the first, "hot_expert:0.5,expert=3" others by name.
struct TrafficParameter {
    std::string_view name;
    double lowest, highest, fallback;
    bool integer = false;
};

/// A parsed text, not yet tied to a number of experts.
struct TrafficSpec;

struct TrafficKind {
    std::string_view name;
    std::string_view help;
    std::vector<TrafficParameter> parameters;
    bool takes_file = false;
    bool shaped_by_ranks = false;  ///< takes `ranks` as well
    std::unique_ptr<TrafficPattern> (*make)(const TrafficSpec&, const PatternShape&) = nullptr;
};

struct TrafficSpec {
    const TrafficKind* kind = nullptr;
    std::vector<double> values;  ///< of kind->parameters
    std::string file;
    std::optional<int> ranks;
};

/// All patterns there are, for help texts, tests and parsing.
[[nodiscard]] const std::vector<TrafficKind>& traffic_table();
/// Parses "name", "name:value" or "name:value,key=value". Appends what is wrong to `mistakes`.
[[nodiscard]] TrafficSpec parse_traffic(const std::string& text, std::vector<std::string>& mistakes);
/// Throws UserError with every mistake, those included that only the shape shows.
[[nodiscard]] std::unique_ptr<TrafficPattern> make_traffic(const std::string& text, PatternShape shape);

// ------------------------------------------------------------ nccl-tests' matrices

/// A square matrix of numbers separated by white space, one line a sender. Throws UserError naming the line.
[[nodiscard]] RankMatrix read_rank_matrix(const std::string& file);
void write_rank_matrix(const std::string& file, const RankMatrix& bytes);

}  // namespace moesaic
