// Conformance of communicators without MPI: one rank alone, and ranks as threads.
#include <gtest/gtest.h>

#include <mutex>

#include "comm/self_communicator.h"
#include "comm/thread_communicator.h"
#include "tests/conformance/communicator_suite.h"

namespace moesaic {
namespace {

struct Case {
    conformance::CommunicatorCheck check;
    int ranks;  // 0: SelfCommunicator
    StreamMode mode;
};

std::vector<Case> cases() {
    std::vector<Case> all;
    for (const auto& check : conformance::communicator_checks()) {
        for (const int ranks : {0, 1, 2, 3, 4, 8}) {
            for (const StreamMode mode :
                 {StreamMode::inline_execution, StreamMode::threads, StreamMode::deferred_shuffled}) {
                all.push_back({check, ranks, mode});
            }
        }
    }
    return all;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
    const Case& c = info.param;
    return fmt::format("{}_{}_{}", c.check.name, c.ranks ? fmt::format("threads{}", c.ranks) : "self",
                       c.mode == StreamMode::inline_execution ? "inline"
                       : c.mode == StreamMode::threads        ? "streams_with_threads"
                                                              : "deferred");
}

class CommunicatorConformance : public testing::TestWithParam<Case> {};

TEST_P(CommunicatorConformance, Holds) {
    const auto run = [](Communicator& world) {
        conformance::Failures failures;
        GetParam().check.run(world, conformance::on_host(GetParam().mode), failures);
        for (const std::string& line : failures.lines())
            ADD_FAILURE() << "rank " << world.rank() << ": " << line;
    };
    if (GetParam().ranks == 0) {
        SelfCommunicator self;
        run(self);
    } else {
        run_ranks(GetParam().ranks, run, 60);
    }
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorConformance, testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace moesaic
