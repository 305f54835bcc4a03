// The bytes that `train --check` foretells against those of a step where routing leaves nothing to chance.
#include "launch/check_report.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "comm/thread_communicator.h"
#include "launch/training_step.h"
#include "tests/support/tiny_run.h"

namespace moesaic {
namespace {

/// Of all ranks, by phase, in one step.
std::map<std::string_view, SentBytes> sent_in_a_step(const RunSetup& run, int world, int expert_parallel) {
    std::map<std::string_view, SentBytes> sent;
    std::mutex mutex;
    run_ranks(world, [&](Communicator& communicator) {
        RuntimeOptions options;
        options.expert_parallel = expert_parallel;
        RankRuntime runtime(run.config, run.spec, communicator, options);
        TrainingStep training(runtime, run.config, *run.dataset);
        (void)training.forward_backward(1);
        const std::lock_guard lock(mutex);
        for (const TrafficLedger::Line& line : communicator.ledger().lines())
            sent[line.operation] += line.bytes;
    });
    return sent;
}

struct Case {
    int world, expert_parallel, ranks_per_node;
    std::vector<std::string> overrides;
};

/// All experts are chosen, so that the expectation is what happens.
TEST(CheckReport, ForetellsBytesExactlyWhereAllExpertsAreChosen) {
    const std::vector<Case> cases{
        {2, 2, 2, {"parallel.exchange=flat"}},
        {4, 2, 2, {"parallel.exchange=flat", "parallel.wire=bf16"}},
        {4, 4, 2, {"parallel.exchange=flat", "train.recompute=layer"}},
        {4, 4, 2, {"parallel.exchange=hierarchical", "train.precision=bf16"}},
        {4, 4, 1, {"parallel.exchange=hierarchical", "model.moe.balance.scope=global"}},
        {4, 4, 2, {"parallel.exchange=dedup", "train.recompute=layer"}},
        {8, 4, 2, {"parallel.exchange=dedup", "model.moe.balance.scope=global"}},
        {4, 4, 2, {"parallel.exchange=dedup", "parallel.dedup_reduce=node", "train.precision=fp64"}},
        {8, 8, 4, {"parallel.exchange=dedup", "parallel.dedup_reduce=node"}},
        {4, 2, 4, {"parallel.exchange=flat", "parallel.expert_tensor=2"}},
        {4, 1, 4, {"parallel.exchange=flat", "parallel.expert_tensor=2"}},
        {8, 2, 2, {"parallel.exchange=dedup", "parallel.expert_tensor=4"}},
        {8, 4, 2, {"parallel.exchange=hierarchical", "parallel.expert_tensor=2"}},
        {8, 4, 4, {"parallel.exchange=dedup", "parallel.dedup_reduce=node", "parallel.expert_tensor=2"}}};
    for (const Case& one : cases) {
        std::vector<std::string> overrides{"model.moe.top_k=8", "train.batch_sequences=11",
                                           "train.micro_sequences=2",
                                           fmt::format("parallel.ranks_per_node={}", one.ranks_per_node)};
        overrides.insert(overrides.end(), one.overrides.begin(), one.overrides.end());
        const RunSetup run = tiny_run(overrides);
        const TrafficEstimate foretold =
            estimate_traffic(run, one.world, one.expert_parallel, one.ranks_per_node, run.spec.exchange);
        const auto sent = sent_in_a_step(run, one.world, one.expert_parallel);
        EXPECT_GE(foretold.exchange.size(), 5u);
        for (const ExpectedBytes& line : foretold.exchange) {
            SCOPED_TRACE(testing::Message() << testing::PrintToString(overrides) << ", " << one.world
                                            << " ranks: " << line.phase);
            ASSERT_TRUE(sent.contains(line.phase));
            EXPECT_DOUBLE_EQ(static_cast<double>(sent.at(line.phase).self), line.self);
            EXPECT_DOUBLE_EQ(static_cast<double>(sent.at(line.phase).same_node), line.same_node);
            EXPECT_DOUBLE_EQ(static_cast<double>(sent.at(line.phase).cross_node), line.cross_node);
        }
    }
}

}  // namespace
}  // namespace moesaic
