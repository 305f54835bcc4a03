// The MPI tests: the conformance suite on the ranks that mpirun started, and ways to fail for
// expect_failure.cmake.
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "comm/mesh.h"
#include "comm/mpi_communicator.h"
#include "comm/shared_window.h"
#include "runtime/base/run_context.h"
#include "tests/conformance/communicator_suite.h"
#include "tests/conformance/exchange_suite.h"

namespace moesaic {
namespace {

/// Collective over `world`. Prints this rank's failures; returns how many all ranks have.
i64 report(Communicator& world, std::string_view name, const conformance::Failures& failures) {
    for (const std::string& line : failures.lines()) {
        std::fputs(fmt::format("{}, rank {}: {}\n", name, world.rank(), line).c_str(), stderr);
    }
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("report");
    i64 count = std::ssize(failures.lines());
    world.all_reduce(*stream, view_of(&count, {1}), ReduceOp::sum, {"failures"});
    return count;
}

void check_surroundings(Communicator& world, conformance::Failures& failures) {
    failures.expect(mpi_launched(), "mpi_launched() does not see mpirun");
    failures.expect(!mpi_library().empty(), "the library has no name");
    failures.expect(run_context().rank == world.rank() && run_context().world_size == world.size(),
                    "run_context() says rank {} of {}", run_context().rank, run_context().world_size);
    const Topology topology = world.topology();
    failures.expect(
        topology.nodes == 1 && topology.ranks_per_node == world.size() && topology.local_rank == world.rank(),
        "{} nodes of {} ranks, this is {}", topology.nodes, topology.ranks_per_node, topology.local_rank);
    const Mesh mesh(world, {.expert = choose_expert_parallel(8, world.size(), topology.ranks_per_node)}, 8);
    failures.expect(mesh.own_experts(0).front() == mesh.experts().rank() * mesh.local_experts(),
                    "the mesh is wrong");
}

int run_suite(Communicator& world) {
    i64 failed = 0;
    conformance::Failures surroundings;
    check_surroundings(world, surroundings);
    failed += report(world, "surroundings", surroundings);
    for (const auto& check : conformance::communicator_checks()) {
        for (const StreamMode mode :
             {StreamMode::inline_execution, StreamMode::threads, StreamMode::deferred_shuffled}) {
            conformance::Failures failures;
            check.run(world, conformance::on_host(mode), failures);
            failed += report(world, check.name, failures);
        }
    }
    for (const StreamMode mode : {StreamMode::inline_execution, StreamMode::deferred_shuffled}) {
        conformance::Failures failures;
        conformance::check_exchanges(world, mode, failures);
        failed += report(world, "exchanges", failures);
    }
    return failed ? 1 : 0;
}

/// The ways to fail; every rank but the one at fault waits in a collective.
int fail(Communicator& world, std::string_view how) {
    run_context().step = 7;
    const bool at_fault = world.rank() == 1;
    SharedMeeting meeting(world);
    if (how == "too-large") (void)world.share_memory(i64{1} << 45, {"rows"});
    if (how == "throw" && at_fault) throw Error(Communicator::speaker() + ": the disk is full");
    if (how == "user-all") throw UserError("config.yaml:3: train.steps: -1 is not a number of steps");
    if (how == "user-one" && at_fault) throw UserError("data.bin: no such file");
    if (how.starts_with("timeout")) {
        world.set_timeout_seconds(0.5);
        if (at_fault) std::this_thread::sleep_for(std::chrono::seconds(20));
    }
    const Label label = how == "disagree" && at_fault ? Label{"combine", 2} : Label{"dispatch", 5};
    if (how == "timeout-in-shared-memory" || how == "throw-in-shared-memory") {
        if (at_fault) throw Error(Communicator::speaker() + ": the disk is full");
        meeting.meet(label);
    }
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("test");
    double value = 1;
    world.all_reduce(*stream, view_of(&value, {1}), ReduceOp::sum, label);
    return 0;
}

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) {
    const std::string how = argc > 1 ? argv[1] : "suite";
    return moesaic::run_mpi_rank(
        [&](moesaic::Communicator& world) {
            return how == "suite" ? moesaic::run_suite(world) : moesaic::fail(world, how);
        },
        60);
}
