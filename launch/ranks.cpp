#include "launch/ranks.h"

#include <algorithm>
#include <cstdio>
#include <mutex>

#include "comm/mpi_communicator.h"
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
        if (mpi_launched()) {
            return run_mpi_rank([&](Communicator& world) {
                if (ranks_as_threads > 0) {
                    throw UserError("--ranks-as-threads is for a single process; under mpirun leave it out");
                }
                return body(world);
            });
        }
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
