// moesaic bench alltoall: the bare all-to-all of rows, laid out and counted as nccl-tests' alltoall_perf and
// alltoallv_perf do.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <thread>

#include "launch/bench/byte_pattern.h"
#include "launch/bench/nccl_table.h"
#include "launch/bench/straggler.h"
#include "launch/ranks.h"
#include "runtime/base/build_info.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

constexpr i64 kGrainBytes = 16;  // as nccl-tests rounds what a pair of ranks exchanges
constexpr i64 kDefaultTokens = 1024, kDefaultSize = i64{32} << 20;

/// What one size means: rows between ranks, by iteration (modulo their number).
struct SizePlan {
    std::vector<RankMatrix> rows;
    i64 row_bytes = kGrainBytes;
    double tokens = 0;  ///< of a rank, on average
    [[nodiscard]] const RankMatrix& of_iteration(i64 iteration) const {
        return rows[static_cast<std::size_t>(iteration % std::ssize(rows))];
    }
};

std::unique_ptr<TrafficPattern> traffic_of(const AlltoallOptions& options, int ranks, i64 tokens) {
    const i64 experts = options.routing.experts;
    auto traffic = make_traffic(options.routing.traffic, {experts, options.routing.top_k, ranks, tokens, 1});
    if (traffic->shape().ranks != ranks)
        throw UserError(fmt::format("--traffic {}: {} ranks are stated, and {} take part; leave 'ranks' out",
                                    options.routing.traffic, traffic->shape().ranks, ranks));
    return traffic;
}

RankMatrix in_rows(RankMatrix bytes, i64 row_bytes) {
    for (i64& one : bytes.amount) one /= row_bytes;
    return bytes;
}

/// Rows of 16 bytes and more, so many tokens that a rank sends `size` bytes: by default up to 1024 tokens
/// whose width follows the size; with --tokens that many.
SizePlan plan_size(const AlltoallOptions& options, i64 size, int ranks) {
    const i64 choices = options.routing.top_k;
    const i64 most = options.routing.tokens > 0 ? options.routing.tokens : kDefaultTokens;
    const i64 tokens = std::clamp<i64>(size / (kGrainBytes * choices), 1, most);
    const auto traffic = traffic_of(options, ranks, tokens);
    SizePlan plan;
    plan.row_bytes = std::max(kGrainBytes, size / (tokens * choices) / kGrainBytes * kGrainBytes);
    const bool even = options.routing.traffic == "uniform";
    if (!even) {
        if (const auto bytes = traffic->rank_bytes(size, kGrainBytes)) {
            plan.row_bytes = kGrainBytes;
            plan.rows.push_back(in_rows(*bytes, kGrainBytes));
            return plan;
        }
    }
    plan.tokens = static_cast<double>(tokens);
    if (even) {  // the same to every rank, to the row
        plan.rows.push_back(in_rows(*traffic->rank_bytes(size, plan.row_bytes), plan.row_bytes));
        plan.tokens = static_cast<double>(plan.rows[0].sent_by(0)) / static_cast<double>(choices);
        return plan;
    }
    const i64 steps = std::min(traffic->period(), options.iterations);
    for (i64 step = 1; step <= steps; ++step) plan.rows.push_back(count_rows(*traffic, step, 0));
    return plan;
}

SizeSweep sweep_of(const AlltoallOptions& options, int ranks) {
    const i64 natural = traffic_of(options, ranks, 1)->natural_bytes();
    SizeSweep sweep;
    sweep.factor = options.step_factor > 1;
    sweep.step = sweep.factor ? options.step_factor : parse_size(options.step_bytes).value();
    const bool given = !options.min_bytes.empty() || !options.max_bytes.empty();
    const i64 otherwise = natural > 0 && !given ? natural : kDefaultSize;
    sweep.smallest = options.min_bytes.empty() ? otherwise : parse_size(options.min_bytes).value();
    sweep.largest = options.max_bytes.empty() ? otherwise : parse_size(options.max_bytes).value();
    if (sweep.largest < sweep.smallest)
        throw UserError(
            fmt::format("-e: {} bytes are less than -b, {} bytes", sweep.largest, sweep.smallest));
    return sweep;
}

/// One rank's side of the sweep.
class AlltoallBench {
  public:
    AlltoallBench(const AlltoallOptions& options, Communicator& world, const BenchWorld& facts,
                  const std::vector<SizePlan>& plans)
        : options_(options),
          world_(world),
          facts_(facts),
          element_bytes_(size_of(bench_dtype(options))),
          stream_(scheduler_.make_stream("all-to-all")),
          buffers_(largest(plans, &RankMatrix::sent_by), largest(plans, &RankMatrix::received_by)) {
        if (options.stragglers) own_work_.resize(std::max<std::size_t>(kOwnBytes, own_work_.size()));
    }

    /// Collective over the world.
    ExchangeLine measure(const SizePlan& plan) {
        buffers_.prepare(plan.rows[0], plan.row_bytes, world_.rank(), 0);
        for (i64 i = 0; i < options_.warmup; ++i) exchange(plan, i);
        std::vector<double> mine;
        for (i64 i = 0; i < options_.iterations; ++i) {
            if (options_.stragglers) do_own_work();
            world_.barrier({"iteration"});
            Stopwatch watch;
            exchange(plan, i);
            mine.push_back(1e6 * watch.lap());
        }
        ExchangeLine line = describe(plan);
        line.times = gather_times(world_, std::move(mine));
        line.slowest = summary_of(line.times.slowest());
        line.time_us = averaged(line.times);
        line.algbw = static_cast<double>(line.size) / line.time_us * 1e-3;
        line.busbw = line.algbw * (world_.size() - 1) / world_.size();
        if (options_.checks > 0) line.wrong = verify(plan);
        return line;
    }

    /// Collective over the world. Every rank's own work in all iterations so far.
    [[nodiscard]] RankTimes own_times() { return gather_times(world_, own_us_); }

  private:
    static constexpr std::size_t kOwnBytes = std::size_t{4} << 20;

    i64 largest(const std::vector<SizePlan>& plans, i64 (RankMatrix::*rows)(int) const) const {
        i64 most = 0;
        for (const SizePlan& plan : plans) {
            for (const RankMatrix& matrix : plan.rows)
                most = std::max(most, (matrix.*rows)(world_.rank()) * plan.row_bytes);
        }
        return most;
    }

    /// Collective over the world.
    void exchange(const SizePlan& plan, i64 iteration) {
        const RankMatrix& rows = plan.of_iteration(iteration);
        std::vector<i64> send, recv;
        for (int peer = 0; peer < world_.size(); ++peer) {
            send.push_back(rows.at(world_.rank(), peer));
            recv.push_back(rows.at(peer, world_.rank()));
        }
        const auto view = [&](std::byte* data, const std::vector<i64>& counts) {
            const i64 total = std::reduce(counts.begin(), counts.end());
            return view_of(reinterpret_cast<BFloat16*>(data), {total, plan.row_bytes / 2});
        };
        world_.all_to_all_rows(*stream_, view(buffers_.send(), send), send, view(buffers_.recv(), recv), recv,
                               {"all-to-all"});
        stream_->synchronize();
    }

    /// What a rank does before an exchange, here a copy in its own memory: slow memory, a busy core or a
    /// throttled clock show in its time.
    void do_own_work() {
        world_.barrier({"own work"});
        Stopwatch watch;
        const std::size_t half = own_work_.size() / 2;
        std::memcpy(own_work_.data() + half, own_work_.data(), half);
        std::memcpy(own_work_.data(), own_work_.data() + half, half);
        if (options_.faults.slow_rank == world_.rank()) {
            std::this_thread::sleep_for(
                std::chrono::microseconds(static_cast<i64>(options_.faults.slow_by_us)));
        }
        own_us_.push_back(1e6 * watch.lap());
    }

    [[nodiscard]] double averaged(const RankTimes& times) const {
        std::vector<double> mean;
        for (int rank = 0; rank < times.ranks; ++rank) mean.push_back(times.mean_of(rank));
        switch (options_.average) {
            case 0:
                return mean.front();
            case 2:
                return std::ranges::min(mean);
            case 3:
                return std::ranges::max(mean);
            default:
                return std::reduce(mean.begin(), mean.end()) / static_cast<double>(mean.size());
        }
    }

    /// What does not have to be measured; means over the iterations.
    [[nodiscard]] ExchangeLine describe(const SizePlan& plan) const {
        ExchangeLine line;
        line.tokens = plan.tokens;
        line.top_k = options_.routing.top_k;
        line.imbalance = 0;
        double size = 0, all = 0;
        const auto count = static_cast<double>(options_.iterations);
        for (i64 i = 0; i < options_.iterations; ++i) {
            RankMatrix bytes = plan.of_iteration(i);
            for (i64& one : bytes.amount) one *= plan.row_bytes;
            size += static_cast<double>(bytes.busiest()) / count;
            all += static_cast<double>(std::reduce(bytes.amount.begin(), bytes.amount.end())) / count;
            line.imbalance += imbalance_of(bytes) / count;
            const TravelSplit split = split_by_distance(bytes, facts_);
            line.bytes.self += split.self;
            line.bytes.same_node += split.same_node;
            line.bytes.cross_node += split.cross_node;
        }
        for (i64* bytes : {&line.bytes.self, &line.bytes.same_node, &line.bytes.cross_node})
            *bytes /= options_.iterations;
        line.size = std::llround(size);
        line.count = std::llround(all / world_.size() / world_.size() / static_cast<double>(element_bytes_));
        return line;
    }

    /// Collective over the world. Wrong elements of all ranks, in iterations of their own.
    i64 verify(const SizePlan& plan) {
        i64 wrong = 0;
        for (i64 check = 0; check < options_.checks; ++check) {
            const RankMatrix& rows = plan.of_iteration(check);
            const u64 salt = ++exchanges_;
            buffers_.prepare(rows, plan.row_bytes, world_.rank(), salt);
            exchange(plan, check);
            plant_fault(rows, plan.row_bytes);
            wrong += buffers_.count_wrong(rows, plan.row_bytes, world_.rank(), salt, element_bytes_);
        }
        world_.all_reduce(*stream_, view_of(&wrong, {1}), ReduceOp::sum, {"wrong elements"});
        stream_->synchronize();
        return wrong;
    }

    /// Changes as many elements as were asked for, on the rank that received most.
    void plant_fault(const RankMatrix& rows, i64 row_bytes) {
        int target = 0;
        for (int rank = 1; rank < rows.ranks; ++rank)
            target = rows.received_by(rank) > rows.received_by(target) ? rank : target;
        if (target != world_.rank()) return;
        const i64 elements = rows.received_by(target) * row_bytes / element_bytes_;
        const i64 count = std::min(options_.faults.wrong_elements, elements);
        for (i64 i = 0; i < count; ++i)
            buffers_.recv()[i * (elements / count) * element_bytes_] ^= std::byte{1};
    }

    const AlltoallOptions& options_;
    Communicator& world_;
    const BenchWorld& facts_;
    i64 element_bytes_;
    HostStreamScheduler scheduler_{StreamMode::inline_execution};
    std::unique_ptr<Stream> stream_;
    ExchangeBuffers buffers_;
    std::vector<std::byte> own_work_;
    std::vector<double> own_us_;
    u64 exchanges_ = 0;
};

void print_json(const AlltoallOptions& options, const BenchWorld& world, const ExchangeLine& line) {
    JsonLine json;
    json.field("bench", "alltoall").field("size", line.size).field("count", line.count);
    json.field("dtype", options.dtype).field("traffic", options.routing.traffic);
    json.field("exchange", "flat").field("ranks", std::ssize(world.ranks)).field("nodes", world.nodes());
    json.field("iterations", options.iterations).field("warmup", options.warmup);
    json.field("bytes", line.size).field("time_us", line.slowest).field("mean_us", line.time_us);
    json.field("algbw_gbs", line.algbw).field("busbw_gbs", line.busbw).field("wrong", line.wrong);
    json.field("tokens", line.tokens > 0 ? std::optional<double>(line.tokens) : std::nullopt);
    json.field("top_k", options.routing.top_k).field("experts", options.routing.experts);
    json.field("imbalance", line.imbalance).field("self_bytes", line.bytes.self);
    json.field("same_node_bytes", line.bytes.same_node).field("cross_node_bytes", line.bytes.cross_node);
    json.field("host", world.ranks[0].host).field("version", kVersion).field("commit", kCommit);
    std::printf("%s\n", json.text().c_str());
    std::fflush(stdout);
}

void check_alltoall_options(const AlltoallOptions& options) {
    OptionMistakes mistakes;
    check_dtype(options, mistakes);
    for (const auto& [name, text] : {std::pair{"-b", options.min_bytes}, {"-e", options.max_bytes}}) {
        const std::optional<i64> size = parse_size(text);
        mistakes.require(text.empty() || (size && *size > 0),
                         fmt::format("{}: '{}' is no size; a number of bytes, or 1K, 64M, 2G", name, text));
    }
    const std::optional<i64> step = parse_size(options.step_bytes);
    mistakes.require(step && *step > 0, fmt::format("-i: '{}' is no size; a number of bytes, or 1K, 64M, 2G",
                                                    options.step_bytes));
    std::vector<std::string> traffic;
    (void)parse_traffic(options.routing.traffic, traffic);
    for (const std::string& mistake : traffic) mistakes.add("--traffic: " + mistake);
    mistakes.require(options.faults.slow_rank < 0 || options.stragglers,
                     "--plant-slow-rank: needs --stragglers, which has ranks work before they exchange");
    mistakes.throw_if_any();
}

/// Collective over `world`.
int run_rank(const AlltoallOptions& given, Communicator& world) {
    AlltoallOptions options = given;
    const i64 ranks = world.size();
    if (options.routing.experts == 0) options.routing.experts = (7 + ranks) / ranks * ranks;
    if (options.routing.experts % ranks != 0)
        throw UserError(fmt::format("--experts: {} do not divide among {} ranks; a multiple of them",
                                    options.routing.experts, ranks));
    if (options.timeout_seconds > 0) world.set_timeout_seconds(options.timeout_seconds);
    const SizeSweep sweep = sweep_of(options, world.size());
    std::vector<SizePlan> plans;
    for (const i64 size : sweep.sizes()) plans.push_back(plan_size(options, size, world.size()));
    const BenchWorld facts = gather_bench_world(world, options.ranks_per_node);
    AlltoallBench bench(options, world, facts, plans);
    const bool speaks = world.rank() == 0, table = speaks && !options.json;
    const std::string start = time_stamp();
    if (table) print_nccl_head(options, sweep, facts);
    std::vector<ExchangeLine> lines;
    for (const SizePlan& plan : plans) {
        lines.push_back(bench.measure(plan));
        if (table) print_nccl_line(lines.back(), bench_dtype(options));
        if (speaks && options.json) print_json(options, facts, lines.back());
    }
    if (table) print_nccl_foot(lines, options.gates);
    if (options.stragglers) {
        const StragglerReport report = find_stragglers(bench.own_times(), facts);
        if (table) print_stragglers(report);
        if (speaks && options.json) print_straggler_json(report);
    }
    if (speaks && !options.json_file.empty()) {
        const std::string name = write_nccl_json(options, sweep, facts, lines, start);
        if (table) std::printf("# JSON output in %s\n", name.c_str());
    }
    if (speaks && !options.matrix_out.empty()) {
        RankMatrix bytes = plans.back().rows[0];
        for (i64& one : bytes.amount) one *= plans.back().row_bytes;
        write_rank_matrix(options.matrix_out, bytes);
    }
    return judge("alltoall", speaks, failures_of(lines, options.gates));
}

}  // namespace

int bench_alltoall(const AlltoallOptions& options) {
    check_alltoall_options(options);
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return run_rank(options, world); });
}

}  // namespace moesaic
