// moesaic bench dispatch: a micro-batch's rows to their experts and back, forward and backward, beside what
// the same ranks copy in their own memory.
#include <algorithm>
#include <array>

#include "comm/exchange/choose_exchange.h"
#include "comm/mpi_bare.h"
#include "launch/bench/dispatch_problem.h"
#include "launch/bench/dispatch_report.h"
#include "launch/bench/element_access.h"
#include "launch/bench/straggler.h"
#include "launch/ranks.h"

namespace moesaic {

namespace {

/// One rank's micro-batch through one exchange.
class DispatchBench {
  public:
    DispatchBench(const DispatchOptions& options, Communicator& world, const DispatchProblem& problem,
                  const std::string& exchange, i64 width)
        : options_(options),
          problem_(problem),
          dtype_(bench_dtype(options)),
          threads_(bench_threads(options, world.topology().ranks_per_node)),
          backend_(make_cpu_backend(threads_)),
          compute_(backend_->make_stream("compute")),
          exchange_stream_(backend_->make_stream("exchange")),
          mesh_(world, {.expert = world.size(), .ranks_per_node = options.ranks_per_node},
                static_cast<int>(options.routing.experts)),
          context_{*backend_, *compute_, *exchange_stream_, mesh_, Phase::train, 1} {
        ExchangeSizes sizes;
        sizes.tokens = std::max<i64>(1, problem.most_tokens());
        sizes.choices = options.routing.top_k;
        sizes.width = width;
        sizes.capacity_rows = std::max<i64>(1, problem.most_received());
        sizes.dtype = dtype_;
        ExchangeSettings settings;
        settings.name = exchange;
        if (exchange == "auto") {
            const ExchangeChoice choice = choose_exchange(context_, sizes, settings);
            settings = choice.settings;
            choice_ = choice.text();
        }
        name_ = exchange == "auto" ? std::string(kAutoPrefix) + settings.name : exchange;
        exchange_ = make_exchange(mesh_, sizes, settings);
        x_ = rows_of(&DispatchProblem::x, width);
        dy_ = rows_of(&DispatchProblem::dy, width);
        const i64 choices = options.routing.top_k;
        routing_.expert = backend_->allocate({problem.tokens(), choices}, DType::int32);
        routing_.weight = backend_->allocate({problem.tokens(), choices}, accumulation_type(dtype_));
        for (i64 i = 0; i < problem.tokens() * choices; ++i) {
            routing_.expert.as<i32>()[i] = problem.expert(i / choices, i % choices);
            store_element(routing_.weight, i, problem.weight(i / choices, i % choices));
        }
        const i64 busiest = std::max<i64>(1, problem.rows().busiest());
        copy_from_ = backend_->allocate({busiest, width}, dtype_);
        copy_to_ = backend_->allocate({busiest, width}, dtype_);
        backend_->zero(*compute_, copy_from_);
        set_up_rival(width * size_of(dtype_));
    }

    [[nodiscard]] int threads() const { return threads_; }
    [[nodiscard]] const std::string& name() const { return name_; }
    /// What auto chose, and from which times; empty for the others.
    [[nodiscard]] const std::string& choice() const { return choice_; }
    [[nodiscard]] bool has_bare_mpi() const { return bare_ != nullptr; }

    /// Collective over the world. Appends this rank's times to `us`, and its time outside of collectives to
    /// `own`.
    void iterate(std::vector<double>* us, std::vector<double>* own) {
        laps_ = {};
        const double exchanging_before = mesh_.exchange_seconds();
        // Rivals, too, find their rows as they were left by what else there is in an iteration.
        bare(copy_from_, sent_rows_, copy_to_, received_rows_);
        timed(kPlan, [&] { plan_ = exchange_->plan(context_, routing_, 0); });
        forward();
        bare(copy_to_, received_rows_, copy_from_, sent_rows_);
        backward();
        timed(kCopy, [&] { backend_->copy(*compute_, copy_from_, copy_to_); });
        const double exchanging = 1e6 * (mesh_.exchange_seconds() - exchanging_before);
        if (us) us->insert(us->end(), laps_.begin(), laps_.end());
        double all = 0;
        for (std::size_t phase = kPlan; phase < kCopy; ++phase) all += laps_[phase];
        if (own) own->push_back(std::max(0.0, all - exchanging));
    }

    /// Collective over the world. What all ranks handed to communicators in one iteration, by the ledger.
    TravelSplit bytes_of_iteration() {
        const SentBytes before = mesh_.world().ledger().of_rows();
        iterate(nullptr, nullptr);
        const SentBytes mine = mesh_.world().ledger().of_rows() - before;
        i64 sums[] = {mine.self, mine.same_node, mine.cross_node};
        mesh_.world().all_reduce(*exchange_stream_, view_of(sums, {3}), ReduceOp::sum,
                                 {"bytes of all ranks"});
        exchange_stream_->synchronize();
        return {sums[0], sums[1], sums[2]};
    }

    /// Collective over the world. Wrong elements of all ranks in an iteration of its own.
    i64 verify() {
        checking_ = true;
        wrong_ = 0;
        iterate(nullptr, nullptr);
        checking_ = false;
        mesh_.world().all_reduce(*exchange_stream_, view_of(&wrong_, {1}), ReduceOp::sum, {"wrong elements"});
        exchange_stream_->synchronize();
        return wrong_;
    }

  private:
    /// Collective over the world.
    void set_up_rival(i64 row_bytes) {
        bare_ = make_bare_all_to_all(row_bytes);
        const int rank = mesh_.world().rank();
        for (int peer = 0; peer < mesh_.world().size(); ++peer) {
            sent_rows_.push_back(problem_.rows().at(rank, peer));
            received_rows_.push_back(problem_.rows().at(peer, rank));
        }
    }

    /// Packed rows, without permutation or weights.
    void bare(ConstTensorView from, Counts send_rows, TensorView to, Counts recv_rows) {
        if (bare_) timed(kBareMpi, [&] { bare_->exchange(from.data, send_rows, to.data, recv_rows); });
    }

    Tensor rows_of(double (DispatchProblem::*value)(i64, i64) const, i64 width) {
        Tensor rows = backend_->allocate({problem_.tokens(), width}, dtype_);
        for (i64 i = 0; i < rows.elements(); ++i)
            store_element(rows, i, (problem_.*value)(i / width, i % width));
        return rows;
    }

    template <class Work>
    void timed(DispatchPhase phase, Work work) {
        mesh_.world().barrier({kPhaseNames[phase]});
        Stopwatch watch;
        work();
        compute_->synchronize();
        laps_[phase] += 1e6 * watch.lap();
    }

    /// Outside of the time, since experts read rows where they are.
    Tensor in_order(const ArrivedRows& arrived, const DispatchChunk& round) {
        Tensor rows = backend_->allocate({exchange_->capacity_rows(), x_.cols()}, dtype_);
        gather_rows(context_, arrived.by_expert(round.received()), rows.slice_rows(0, round.received()));
        compute_->synchronize();
        return rows;
    }

    /// What the experts do, outside of the time: each multiplies its rows by its scale.
    ExpertRows scaled(const DispatchChunk& round, ConstTensorView rows) {
        ExpertRows results = exchange_->result_rows(context_);
        i64 i = 0;
        for (std::size_t local = 0; local < round.rows_per_expert.size(); ++local) {
            const double scale = DispatchProblem::scale(mesh_.own_experts(0)[local]);
            for (const i64 end = i + round.rows_per_expert[local] * rows.cols(); i < end; ++i)
                store_element(results.rows, i, scale * load_element(rows, i));
        }
        return results;
    }

    void forward() {
        saved_ = {};
        for (std::size_t round = 0; round < plan_.chunks.size(); ++round) {
            ArrivedRows arrived;
            timed(kDispatch, [&] {
                arrived = exchange_->finish_arrival(context_, plan_, round,
                                                    exchange_->start_dispatch(context_, plan_, round, x_));
            });
            Tensor rows = in_order(arrived, plan_.chunks[round]);
            if (checking_) {
                plant_fault(rows.slice_rows(0, plan_.chunks[round].received()));
                wrong_ += problem_.wrong_arrivals(rows, false);
            }
            ExpertRows results = scaled(plan_.chunks[round], rows);
            timed(kCombine, [&] {
                exchange_->combine(context_, plan_, round, std::move(results), routing_.weight, saved_);
                if (round + 1 == plan_.chunks.size())
                    y_ = exchange_->finish_combine(context_, plan_, routing_.weight, saved_);
            });
        }
        if (checking_ && options_.faults.wrong_elements == 0) wrong_ += problem_.wrong_results(y_);
    }

    void backward() {
        ExchangeBackward backward;
        ExchangeGradients gradients;
        for (std::size_t round = 0; round < plan_.chunks.size(); ++round) {
            ArrivedRows arrived;
            timed(kCombineBackward, [&] {
                if (round == 0)
                    backward = exchange_->begin_backward(context_, plan_, dy_, routing_.weight, saved_);
                arrived = exchange_->finish_arrival(
                    context_, plan_, round,
                    exchange_->start_combine_backward(context_, plan_, round, backward));
            });
            const Tensor rows = in_order(arrived, plan_.chunks[round]);
            if (checking_) wrong_ += problem_.wrong_arrivals(rows, true);
            ExpertRows d_rows = scaled(plan_.chunks[round], rows);
            timed(kDispatchBackward, [&] {
                exchange_->dispatch_backward(context_, plan_, round, std::move(d_rows), backward);
                if (round + 1 == plan_.chunks.size())
                    gradients = exchange_->finish_backward(context_, plan_, std::move(backward));
            });
        }
        if (checking_ && options_.faults.wrong_elements == 0)
            wrong_ += problem_.wrong_gradients(gradients.dx, gradients.d_weight);
    }

    /// On the rank that received most.
    void plant_fault(TensorView rows) {
        int target = 0;
        const RankMatrix& matrix = problem_.rows();
        for (int rank = 1; rank < matrix.ranks; ++rank)
            target = matrix.received_by(rank) > matrix.received_by(target) ? rank : target;
        const i64 count = std::min(options_.faults.wrong_elements, rows.elements());
        if (target != mesh_.world().rank()) return;
        for (i64 i = 0; i < count; ++i) {
            const i64 at = i * (rows.elements() / count);
            store_element(rows, at, 8 + load_element(rows, at));
        }
    }

    const DispatchOptions& options_;
    const DispatchProblem& problem_;
    DType dtype_;
    int threads_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Stream> compute_, exchange_stream_;
    Mesh mesh_;
    StepContext context_;
    std::string name_, choice_;
    std::unique_ptr<Exchange> exchange_;
    Tensor x_, dy_, y_, copy_from_, copy_to_;
    std::unique_ptr<BareAllToAll> bare_;
    std::vector<i64> sent_rows_, received_rows_;
    Routing routing_;
    DispatchPlan plan_;
    ExchangeSaved saved_;
    std::array<double, kPhases> laps_{};
    bool checking_ = false;
    i64 wrong_ = 0;
};

/// One exchange and what its iterations took on this rank.
struct Measured {
    std::unique_ptr<DispatchBench> bench;
    std::vector<double> laps, own;
};

/// Collective over `world`. All exchanges, in turn: what disturbs the machine for longer than an iteration
/// disturbs all of them.
std::vector<Measured> measure(const DispatchOptions& options, Communicator& world,
                              const DispatchProblem& problem, i64 width) {
    std::vector<Measured> all;
    for (const std::string& exchange : options.exchanges)
        all.push_back({std::make_unique<DispatchBench>(options, world, problem, exchange, width), {}, {}});
    for (i64 i = 0; i < options.warmup; ++i) {
        for (const Measured& one : all) one.bench->iterate(nullptr, nullptr);
    }
    for (i64 i = 0; i < options.iterations; ++i) {
        for (Measured& one : all) one.bench->iterate(&one.laps, &one.own);
    }
    return all;
}

/// Collective over `world`.
DispatchLine line_of(const DispatchOptions& options, Communicator& world, const DispatchProblem& problem,
                     Measured measured, i64 width) {
    DispatchBench& bench = *measured.bench;
    const RankTimes times = gather_times(world, std::move(measured.laps));
    DispatchLine line;
    line.exchange = bench.name();
    line.width = width;
    line.threads = bench.threads();
    line.has_bare_mpi = bench.has_bare_mpi();
    line.own = gather_times(world, std::move(measured.own));
    RankMatrix bytes = problem.rows();
    for (i64& one : bytes.amount) one *= width * size_of(bench_dtype(options));
    set_times(line, times, bytes);
    line.moved.bytes = bench.bytes_of_iteration();
    if (options.checks > 0) line.moved.wrong = 0;
    for (i64 check = 0; check < options.checks; ++check) *line.moved.wrong += bench.verify();
    return line;
}

/// Prints it where this rank speaks.
void report(const DispatchOptions& options, const BenchWorld& world, const DispatchLine& line, bool speaks) {
    if (!speaks) return;
    if (options.json) {
        print_dispatch_json(options, world, line);
        if (options.stragglers) print_straggler_json(find_stragglers(line.own, world));
    } else {
        print_dispatch_line(options, line);
        if (options.stragglers) print_stragglers(find_stragglers(line.own, world));
    }
}

/// Collective over `world`. All exchanges with one micro-batch; sentences for gates that do not hold.
std::vector<DispatchLine> measure_exchanges(const DispatchOptions& options, Communicator& world,
                                            const BenchWorld& facts, const DispatchProblem& problem,
                                            i64 tokens, i64 width, std::vector<std::string>& failures) {
    const bool speaks = world.rank() == 0;
    std::vector<DispatchLine> lines;
    for (Measured& one : measure(options, world, problem, width)) {
        const std::string choice = one.bench->choice();
        lines.push_back(line_of(options, world, problem, std::move(one), width));
        lines.back().tokens = tokens;
        report(options, facts, lines.back(), speaks);
        if (speaks && !options.json && !choice.empty()) fmt::print("# {}\n", choice);
        const double share = lines.back().forward_gbs() / lines.back().memcpy_gbs;
        if (options.min_memcpy_fraction && share < *options.min_memcpy_fraction)
            failures.push_back(
                fmt::format("{} at {} tokens of width {}: {:.3f} of memcpy, less than "
                            "--min-memcpy-fraction {:g}",
                            lines.back().exchange, tokens, width, share, *options.min_memcpy_fraction));
    }
    const std::optional<AutoChoice> choice = judge_auto(lines);
    if (choice && speaks) print_auto_choice(options, lines[0], *choice);
    if (choice && options.max_auto_loss && choice->loss > *options.max_auto_loss)
        failures.push_back(fmt::format(
            "auto at {} tokens of width {} took {}, {:.1f} % above {}, more than --max-auto-loss {:g}",
            tokens, width, choice->taken, 100 * choice->loss, choice->fastest, *options.max_auto_loss));
    return lines;
}

/// Collective over `world`.
int run_rank(const DispatchOptions& given, Communicator& world) {
    DispatchOptions options = given;
    const i64 ranks = world.size();
    if (options.routing.experts == 0) options.routing.experts = (7 + ranks) / ranks * ranks;
    if (options.routing.experts % ranks != 0)
        throw UserError(fmt::format("--experts: {} do not divide among {} ranks; a multiple of them",
                                    options.routing.experts, ranks));
    const BenchWorld facts = gather_bench_world(world, options.ranks_per_node);
    const bool speaks = world.rank() == 0;
    if (speaks && !options.json)
        print_dispatch_head(options, facts, bench_threads(options, world.topology().ranks_per_node));
    std::vector<ExchangeLine> moved;
    std::vector<std::string> failures;
    RankMatrix last;
    for (const i64 tokens : options.tokens) {
        const auto traffic =
            make_traffic(options.routing.traffic,
                         {options.routing.experts, options.routing.top_k, world.size(), tokens, 1});
        for (const i64 width : options.widths) {
            const DispatchProblem problem(*traffic, world.rank(), width);
            for (DispatchLine& line :
                 measure_exchanges(options, world, facts, problem, tokens, width, failures))
                moved.push_back(std::move(line.moved));
            last = problem.rows();
            for (i64& one : last.amount) one *= width * size_of(bench_dtype(options));
        }
    }
    if (speaks && !options.matrix_out.empty()) write_rank_matrix(options.matrix_out, last);
    for (const std::string& failure : failures_of(moved, options.gates)) failures.push_back(failure);
    return judge("dispatch", speaks, failures);
}

void check_dispatch_options(const DispatchOptions& options) {
    OptionMistakes mistakes;
    check_dtype(options, mistakes);
    std::vector<std::string> traffic;
    (void)parse_traffic(options.routing.traffic, traffic);
    for (const std::string& mistake : traffic) mistakes.add("--traffic: " + mistake);
    std::string known = "auto";
    for (const ExchangeKind& kind : exchange_table())
        known += (known.empty() ? "" : ", ") + std::string(kind.name);
    for (const std::string& name : options.exchanges) {
        const bool found = name == "auto" || std::ranges::any_of(exchange_table(), [&](const auto& kind) {
                               return kind.name == name;
                           });
        mistakes.require(found, fmt::format("--exchange: '{}' is no exchange; there are {}", name, known));
    }
    for (const i64 width : options.widths)
        mistakes.require(width <= 1 << 18,
                         fmt::format("--width: {}; at most 262144, where checks are exact", width));
    mistakes.throw_if_any();
}

}  // namespace

int bench_dispatch(const DispatchOptions& options) {
    check_dispatch_options(options);
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return run_rank(options, world); });
}

}  // namespace moesaic
