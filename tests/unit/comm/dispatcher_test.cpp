// The four uses of a plan against an oracle without dispatch: a row's numbers say which token it is of.
#include "comm/dispatcher.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>

#include "tests/support/rank_setup.h"
#include "tests/support/routing_cases.h"

namespace moesaic {
namespace {

constexpr i64 kWidth = 5;

using Rows = std::vector<double>;  // [rows, kWidth]

/// Row number `number` of a matrix called `name`: other numbers and other names give other values.
double value_of(std::string_view name, double number, i64 column) {
    return number + static_cast<double>(column) / 8 + static_cast<double>(hash_name(name) % 64) / 1024;
}

void push_row(Rows& rows, std::string_view name, double number) {
    for (i64 column = 0; column < kWidth; ++column) rows.push_back(value_of(name, number, column));
}

/// What expert `expert` makes of a row's number; the result says expert and token.
double expert_number(double number, i64 expert) {
    return number + 100000.0 * static_cast<double>(expert + 1);
}

double choice_number(const RoutedRow& row) {
    return expert_number(RoutingCase::token_number(row.source, row.token), row.expert);
}

/// What one rank saw, chunk after chunk.
struct Seen {
    Rows dispatched, combined, d_slots, d_rows;
    std::vector<i64> received;
    std::vector<std::vector<i64>> rows_per_expert;
    double dispatch_forward = 0, dispatch_adjoint = 0, combine_forward = 0, combine_adjoint = 0;
};

double dot(const Rows& a, const Rows& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// One rank's dispatcher on one routing, with host vectors in and out.
class Bench {
  public:
    Bench(RankSetup& setup, const RoutingCase& routing, i64 capacity)
        : setup_(setup),
          routing_(routing),
          rank_(setup.mesh.experts().rank()),
          tokens_(routing.tokens[static_cast<std::size_t>(rank_)]),
          dispatcher_(capacity, kWidth, 3) {
        expert_ = routing.expert[static_cast<std::size_t>(rank_)];
        Routing decided;
        decided.expert = setup.backend->allocate({tokens_, routing.choices}, DType::int32);
        setup.backend->copy(*setup.compute, view_of(expert_.data(), decided.expert.shape()), decided.expert);
        plan_ = make_plan(setup.context, decided, capacity, 3);
    }

    [[nodiscard]] const DispatchPlan& plan() const { return plan_; }
    [[nodiscard]] i64 tokens() const { return tokens_; }

    /// Collective. What dispatch or combine_backward delivers of `from`, all chunks one after the other.
    Rows to_experts(bool backward, const Rows& from, i64 rows) {
        const Tensor input = upload(from, rows);
        Rows all;
        for (std::size_t chunk = 0; chunk < plan_.chunks.size(); ++chunk) {
            const Tensor out = backward ? dispatcher_.combine_backward(setup_.context, plan_, chunk, input)
                                        : dispatcher_.dispatch(setup_.context, plan_, chunk, input);
            EXPECT_EQ(out.rows(), dispatcher_.capacity_rows());
            append(all, setup_.read<double>(out.slice_rows(0, plan_.chunks[chunk].received())));
        }
        return all;
    }
    /// Collective. All slots after combine or dispatch_backward of `rows` (all chunks one after the other).
    Rows to_slots(bool backward, const Rows& rows) {
        Tensor slots = setup_.backend->allocate({plan_.slots, kWidth}, DType::f64);
        i64 first = 0;
        for (std::size_t chunk = 0; chunk < plan_.chunks.size(); ++chunk) {
            const i64 count = plan_.chunks[chunk].received();
            const auto from = rows.begin() + first * kWidth;
            const Tensor part = upload({from, from + count * kWidth}, count);
            if (backward) {
                dispatcher_.dispatch_backward(setup_.context, plan_, chunk, part, slots);
            } else {
                dispatcher_.combine(setup_.context, plan_, chunk, part, slots);
            }
            first += count;
        }
        return setup_.read<double>(slots);
    }
    /// dx[t] = sum over this token's slots, the rest of the adjoint of dispatch.
    Rows sum_choices(const Rows& d_slots) {
        Rows dx(static_cast<std::size_t>(tokens_ * kWidth), 0.0);
        const std::vector<i32> slots = setup_.read<i32>(plan_.slot_of_choice);
        for (std::size_t i = 0; i < slots.size(); ++i) {
            if (slots[i] < 0) continue;
            const auto token = static_cast<i64>(i) / routing_.choices;
            for (i64 column = 0; column < kWidth; ++column) {
                dx[static_cast<std::size_t>(token * kWidth + column)] +=
                    d_slots[static_cast<std::size_t>(slots[i] * kWidth + column)];
            }
        }
        return dx;
    }
    Rows random_rows(std::string_view name, i64 rows) const {
        const Philox random(11, std::string(name) + std::to_string(rank_));
        Rows values(static_cast<std::size_t>(rows * kWidth));
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
        return values;
    }
    [[nodiscard]] i64 received() const {
        i64 sum = 0;
        for (const DispatchChunk& chunk : plan_.chunks) sum += chunk.received();
        return sum;
    }

  private:
    /// A tensor with these rows; synchronises, so that `rows` may go.
    Tensor upload(const Rows& rows, i64 count) {
        Tensor tensor = setup_.backend->allocate({count, kWidth}, DType::f64);
        setup_.backend->copy(*setup_.compute, view_of(rows.data(), tensor.shape()), tensor);
        setup_.compute->synchronize();
        return tensor;
    }
    static void append(Rows& all, const Rows& more) { all.insert(all.end(), more.begin(), more.end()); }

    RankSetup& setup_;
    const RoutingCase& routing_;
    int rank_;
    i64 tokens_;
    std::vector<i32> expert_;
    Dispatcher dispatcher_;
    DispatchPlan plan_;
};

/// Collective over the world of `setup`.
Seen use_plan_four_times(RankSetup& setup, const RoutingCase& routing, i64 capacity) {
    Bench bench(setup, routing, capacity);
    const int rank = setup.mesh.experts().rank();
    Seen seen;
    for (const DispatchChunk& chunk : bench.plan().chunks) {
        seen.received.push_back(chunk.received());
        seen.rows_per_expert.push_back(chunk.rows_per_expert);
    }
    Rows x, results, d_rows, d_slots;
    for (i64 token = 0; token < bench.tokens(); ++token) {
        push_row(x, "x", RoutingCase::token_number(rank, token));
    }
    for (const RoutedRow& row : routing.received_by(rank)) {
        push_row(results, "result", choice_number(row));
        push_row(d_rows, "d_row", choice_number(row));
    }
    for (const RoutedRow& row : routing.sent_by(rank)) push_row(d_slots, "d_slot", choice_number(row));
    seen.dispatched = bench.to_experts(false, x, bench.tokens());
    seen.combined = bench.to_slots(false, results);
    seen.d_slots = bench.to_slots(true, d_rows);
    seen.d_rows = bench.to_experts(true, d_slots, bench.plan().slots);

    const Rows a = bench.random_rows("a", bench.tokens()), z = bench.random_rows("z", bench.received());
    seen.dispatch_forward = dot(bench.to_experts(false, a, bench.tokens()), z);
    seen.dispatch_adjoint = dot(a, bench.sum_choices(bench.to_slots(true, z)));
    const Rows s = bench.random_rows("s", bench.plan().slots);
    seen.combine_forward = dot(bench.to_slots(false, z), s);
    seen.combine_adjoint = dot(z, bench.to_experts(true, s, bench.plan().slots));
    setup.drain();
    return seen;
}

void expect_seen(const std::vector<Seen>& all, const RoutingCase& routing, i64 capacity) {
    double sums[4] = {0, 0, 0, 0};
    for (i64 rank = 0; rank < routing.ranks; ++rank) {
        const Seen& seen = all[static_cast<std::size_t>(rank)];
        Rows dispatched, combined, d_slots, d_rows;
        for (const RoutedRow& row : routing.received_by(rank)) {
            push_row(dispatched, "x", RoutingCase::token_number(row.source, row.token));
            push_row(d_rows, "d_slot", choice_number(row));
        }
        for (const RoutedRow& row : routing.sent_by(rank)) {
            push_row(combined, "result", choice_number(row));
            push_row(d_slots, "d_row", choice_number(row));
        }
        EXPECT_EQ(seen.dispatched, dispatched);
        EXPECT_EQ(seen.combined, combined);
        EXPECT_EQ(seen.d_slots, d_slots);
        EXPECT_EQ(seen.d_rows, d_rows);
        for (std::size_t chunk = 0; chunk < seen.received.size(); ++chunk) {
            EXPECT_LE(seen.received[chunk], capacity);
            i64 rows = 0;
            for (const i64 count : seen.rows_per_expert[chunk]) rows += count;
            EXPECT_EQ(rows, seen.received[chunk]);
            EXPECT_EQ(seen.received.size(), all[0].received.size());
        }
        sums[0] += seen.dispatch_forward;
        sums[1] += seen.dispatch_adjoint;
        sums[2] += seen.combine_forward;
        sums[3] += seen.combine_adjoint;
    }
    EXPECT_NEAR(sums[0], sums[1], 1e-12 * (1 + std::abs(sums[0])));
    EXPECT_NEAR(sums[2], sums[3], 1e-12 * (1 + std::abs(sums[2])));
}

void check_layout(int ranks, int experts, int replicas, StreamChoice streams) {
    for (const RoutingCase& routing : routing_cases(ranks, experts)) {
        for (const i64 capacity : {1, 4, 13, 1000}) {
            SCOPED_TRACE(testing::Message() << routing.name << ", ranks " << ranks << ", experts " << experts
                                            << ", capacity " << capacity << ", seed " << streams.seed);
            std::vector<Seen> seen(static_cast<std::size_t>(ranks * replicas));
            run_ranks(ranks * replicas, [&](Communicator& world) {
                RankSetup setup(world, ranks, experts, streams);
                seen[static_cast<std::size_t>(world.rank())] = use_plan_four_times(setup, routing, capacity);
            });
            for (int replica = 0; replica < replicas; ++replica) {
                const auto first = seen.begin() + replica * ranks;
                expect_seen({first, first + ranks}, routing, capacity);
            }
        }
    }
}

TEST(Dispatcher, OneRank) {
    check_layout(1, 5, 1, {});
}
TEST(Dispatcher, TwoRanks) {
    check_layout(2, 6, 1, {});
}
TEST(Dispatcher, ThreeRanks) {
    check_layout(3, 6, 1, {});
}
TEST(Dispatcher, ThreeRanksOfOneExpert) {
    check_layout(3, 3, 1, {});
}
TEST(Dispatcher, FourRanks) {
    check_layout(4, 8, 1, {});
}
TEST(Dispatcher, EightRanks) {
    check_layout(8, 16, 1, {});
}
TEST(Dispatcher, TwoReplicasOfTwoRanks) {
    check_layout(2, 4, 2, {});
}

TEST(Dispatcher, DeferredStreams) {
    for (const u64 seed : std::array<u64, 4>{1, 2, 3, 4}) {
        check_layout(1, 4, 1, {StreamMode::deferred_shuffled, seed});
        check_layout(2, 6, 1, {StreamMode::deferred_shuffled, seed});
        check_layout(4, 8, 1, {StreamMode::deferred_shuffled, seed});
        check_layout(3, 3, 1, {StreamMode::deferred_shuffled, seed});
    }
}

/// All four uses of all chunks are enqueued before anything runs: only events and the pool's rules order
/// them.
Rows run_without_synchronising(RankSetup& setup, const RoutingCase& routing, i64 capacity) {
    const auto rank = static_cast<std::size_t>(setup.mesh.experts().rank());
    const i64 tokens = routing.tokens[rank];
    std::vector<i32> expert = routing.expert[rank];
    Rows x;
    for (i64 token = 0; token < tokens; ++token) {
        push_row(x, "x", RoutingCase::token_number(static_cast<i64>(rank), token));
    }
    Backend& backend = *setup.backend;
    Routing decided;
    decided.expert = backend.allocate({tokens, routing.choices}, DType::int32);
    backend.copy(*setup.compute, view_of(expert.data(), decided.expert.shape()), decided.expert);
    const DispatchPlan plan = make_plan(setup.context, decided, capacity, 0);
    const Dispatcher dispatcher(capacity, kWidth, 0);
    Tensor slots = backend.allocate({plan.slots, kWidth}, DType::f64);
    Tensor d_slots = backend.allocate({plan.slots, kWidth}, DType::f64);
    Tensor y = backend.allocate({tokens, kWidth}, DType::f64);
    for (std::size_t chunk = 0; chunk < plan.chunks.size(); ++chunk) {
        Tensor rows = dispatcher.dispatch(setup.context, plan, chunk, view_of(x.data(), {tokens, kWidth}));
        const TensorView used = rows.slice_rows(0, plan.chunks[chunk].received());
        backend.scale(*setup.compute, 3.0, used);
        dispatcher.combine(setup.context, plan, chunk, used, slots);
        rows.reset();
        Tensor scratch = backend.allocate({capacity, kWidth}, DType::f64);  // the block just given back
        backend.zero(*setup.compute, scratch);
    }
    for (std::size_t chunk = 0; chunk < plan.chunks.size(); ++chunk) {
        Tensor d_rows = dispatcher.combine_backward(setup.context, plan, chunk, slots);
        backend.scale(*setup.compute, 0.5, d_rows.slice_rows(0, plan.chunks[chunk].received()));
        dispatcher.dispatch_backward(setup.context, plan, chunk, d_rows, d_slots);
        d_rows.reset();
        Tensor scratch = backend.allocate({capacity, kWidth}, DType::f64);
        backend.zero(*setup.compute, scratch);
    }
    backend.combine_rows(*setup.compute,
                         {.rows = d_slots, .slot = plan.slot_of_choice, .weight = {}, .y = y});
    Rows result = setup.read<double>(y);
    setup.drain();
    return result;
}

TEST(Dispatcher, RoundTripWithIdentityExpertsGivesTheTokensBack) {
    for (const auto& shape : {std::pair{1, 4}, {2, 6}, {3, 3}, {4, 8}}) {
        const int ranks = shape.first, experts = shape.second;
        for (const RoutingCase& routing : routing_cases(ranks, experts)) {
            for (const i64 capacity : {2, 5, 1000}) {
                for (const u64 seed : std::array<u64, 6>{0, 1, 2, 3, 4, 5}) {
                    const StreamChoice streams{
                        seed == 0 ? StreamMode::inline_execution : StreamMode::deferred_shuffled, seed};
                    SCOPED_TRACE(testing::Message() << routing.name << ", ranks " << ranks << ", capacity "
                                                    << capacity << ", seed " << seed);
                    std::vector<Rows> results(static_cast<std::size_t>(ranks));
                    run_ranks(ranks, [&](Communicator& world) {
                        RankSetup setup(world, ranks, experts, streams);
                        results[static_cast<std::size_t>(world.rank())] =
                            run_without_synchronising(setup, routing, capacity);
                    });
                    for (int rank = 0; rank < ranks; ++rank) {
                        const auto& mine = routing.expert[static_cast<std::size_t>(rank)];
                        Rows expected;
                        for (i64 i = 0; i < std::ssize(mine); i += routing.choices) {
                            const auto kept =
                                std::count_if(mine.begin() + i, mine.begin() + i + routing.choices,
                                              [](i32 expert) { return expert >= 0; });
                            for (i64 column = 0; column < kWidth; ++column) {
                                const double number = RoutingCase::token_number(rank, i / routing.choices);
                                expected.push_back(1.5 * static_cast<double>(kept) *
                                                   value_of("x", number, column));
                            }
                        }
                        EXPECT_EQ(results[static_cast<std::size_t>(rank)], expected);
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace moesaic
