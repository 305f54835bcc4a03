#include "launch/agreement.h"

#include <vector>

#include "runtime/base/philox.h"

namespace moesaic {

void check_agreement(Communicator& world, std::string_view what, std::string_view text) {
    i64 mine = static_cast<i64>(hash_name(text));
    std::vector<i64> all(static_cast<std::size_t>(world.size()));
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("agreement");
    world.all_gather(*stream, view_of(&mine, {1}), view_of(all.data(), {world.size()}),
                     {"agreement at start-up"});
    std::string others;
    for (int rank = 1; rank < world.size(); ++rank) {
        if (all[static_cast<std::size_t>(rank)] != all[0])
            others += fmt::format("{}{}", others.empty() ? "" : ", ", rank);
    }
    if (others.empty()) return;
    throw Error(fmt::format(
        "{} of rank {} is not that of rank 0: every rank has to read the same files with the same binary",
        what, others));
}

}  // namespace moesaic
