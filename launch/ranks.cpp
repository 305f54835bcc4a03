#include "launch/ranks.h"

#include <algorithm>
#include <cstdio>
#include <mutex>

#include "comm/mpi_communicator.h"
#include "comm/self_communicator.h"
#include "comm/thread_communicator.h"
#include "runtime/base/error.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

void print_error(const Error& error, int world) {
    const std::string step = error.step() >= 0 ? fmt::format(", step {}", error.step()) : "";
    const std::string who = world > 1 ? fmt::format("rank {} of {}{}: ", error.rank(), world, step) : "";
    std::fprintf(stderr, "moesaic: error: %s%s\n", who.c_str(), error.what());
}

/// Runs the body; a user's mistake becomes exit code 2, printed by the first rank that reports it.
int with_user_errors(const std::function<int(Communicator&)>& body, Communicator& world) {
    try {
        return body(world);
    } catch (const PrintedError&) {
        return 2;
    } catch (const UserError& error) {
        if (world.rank() == 0) std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}

int run_on_threads(int ranks, const std::function<int(Communicator&)>& body) {
    std::mutex mutex;
    int code = 0;
    run_ranks(ranks, [&](Communicator& world) {
        const int mine = with_user_errors(body, world);
        const std::lock_guard lock(mutex);
        code = std::max(code, mine);
    });
    return code;
}

}  // namespace

int run_on_ranks(const RankOptions& options, const std::function<int(Communicator&)>& body) {
    int world_size = std::max(1, options.ranks_as_threads);
    try {
        if (mpi_launched()) {
            if (options.ranks_as_threads > 0) {
                throw UserError("moesaic: --ranks-as-threads is for a single process; under mpirun leave it out");
            }
            const MpiSession session;
            return run_mpi_rank([&](Communicator& world) { return with_user_errors(body, world); });
        }
        if (options.ranks_as_threads > 0) return run_on_threads(options.ranks_as_threads, body);
        const auto self = make_self_communicator();
        return with_user_errors(body, *self);
    } catch (const UserError& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    } catch (const Error& error) {
        print_error(error, world_size);
        return 1;
    }
}

void agree_on_user_errors(Communicator& world, const std::function<void()>& work) {
    std::string message;
    try {
        work();
    } catch (const UserError& error) {
        message = error.what();
    }
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("agreement");
    i64 failing_rank = message.empty() ? world.size() : world.rank();
    world.all_reduce(*stream, view_of(&failing_rank, {1}), ReduceOp::min, {"agreement on user errors"});
    if (failing_rank == world.size()) return;
    if (failing_rank == world.rank()) std::fprintf(stderr, "%s\n", message.c_str());
    throw PrintedError("a user error was printed by rank " + std::to_string(failing_rank));
}

}  // namespace moesaic
