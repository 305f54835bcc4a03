#include "launch/together.h"

#include "runtime/base/error.h"

namespace moesaic {

std::vector<bool> gather_failures(Communicator& world, Stream& stream, bool failed) {
    i64 mine = failed ? 1 : 0;
    std::vector<i64> all(static_cast<std::size_t>(world.size()));
    world.all_gather(stream, view_of(&mine, {1}), view_of(all.data(), {world.size()}), {"who has failed"});
    stream.synchronize();
    return {all.begin(), all.end()};
}

void throw_first_failure(const Communicator& world, const std::vector<bool>& failed,
                         const std::exception_ptr& mine) {
    for (int rank = 0; rank < world.size(); ++rank) {
        if (!failed[static_cast<std::size_t>(rank)]) continue;
        if (rank == world.rank()) std::rethrow_exception(mine);
        throw AbortedError(fmt::format("rank {} failed", rank));
    }
}

void together(Communicator& world, Stream& stream, const std::function<void()>& work) {
    std::exception_ptr failure;
    try {
        work();
    } catch (const std::exception&) {
        failure = std::current_exception();
    }
    throw_first_failure(world, gather_failures(world, stream, failure != nullptr), failure);
}

}  // namespace moesaic
