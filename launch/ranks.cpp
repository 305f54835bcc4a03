#include "launch/ranks.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>

#include "comm/mpi_communicator.h"
#include "comm/mpi_environment.h"
#include "comm/mpi_facts.h"
#include "comm/self_communicator.h"
#include "comm/thread_communicator.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace moesaic {

namespace {

int run_on_threads(int ranks, const std::function<int(Communicator&)>& body) {
    std::mutex mutex;
    int code = 0;
    run_ranks(ranks, [&](Communicator& world) {
        const int mine = body(world);
        const std::lock_guard lock(mutex);
        code = std::max(code, mine);
    });
    return code;
}

/// Exit code 2 of a process that its launcher counts among several and its MPI library does not: each would
/// train alone, into the same folder.
int refuse_foreign_launcher(const MpiLaunch& launch) {
    // What the first one says must be out before the launcher sees any of them leave.
    if (launch.rank != 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const MpiFacts facts = mpi_facts();
    const std::string library = facts.compiled ? facts.library : "none, as it was built without MPI";
    if (launch.rank == 0) {
        const std::string text = fmt::format(
            "moesaic: {} started {} processes, but the MPI of this program ({}) sees each of them alone: the "
            "launcher belongs to another MPI, or srun was not told of one. Start it with this MPI's mpirun, "
            "or "
            "build again with the other one's mpicc (-DMPI_C_COMPILER=...); under Slurm: srun --mpi=pmix or "
            "pmi2, `srun --mpi=list` says what there is",
            launch.launcher, launch.size, library);
        std::fprintf(stderr, "%s\n", text.c_str());
    }
    return 2;
}

void print_error(const Error& error, int world_size) {
    const std::string text = error.what();
    if (world_size == 1 || text.starts_with("rank ")) {
        log_message(LogLevel::error, text);
        return;
    }
    const std::string step = error.step() >= 0 ? fmt::format(", step {}", error.step()) : "";
    log_message(LogLevel::error, fmt::format("rank {} of {}{}: {}", error.rank(), world_size, step, text));
}

}  // namespace

int run_on_ranks(int ranks_as_threads, const std::function<int(Communicator&)>& body) {
    try {
        const MpiLaunch launch = mpi_launch();  // MPI itself changes the environment
        if (mpi_launched()) {
            return run_mpi_rank([&](Communicator& world) {
                if (world.size() == 1 && launch.size > 1) return refuse_foreign_launcher(launch);
                if (ranks_as_threads > 0) {
                    throw UserError("--ranks-as-threads is for a single process; under mpirun leave it out");
                }
                return body(world);
            });
        }
        if (launch.size > 1) return refuse_foreign_launcher(launch);  // srun without a word about MPI
        if (ranks_as_threads > 0) return run_on_threads(ranks_as_threads, body);
        SelfCommunicator self;
        return body(self);
    } catch (const UserError& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    } catch (const Error& error) {
        print_error(error, std::max(1, ranks_as_threads));
        return 1;
    }
}

}  // namespace moesaic
