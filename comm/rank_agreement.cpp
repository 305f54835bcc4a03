#include "comm/rank_agreement.h"

#include <algorithm>
#include <vector>

namespace moesaic {

int first_rank_without(Communicator& world, bool has, Label label) {
    if (!world.connected()) return has ? -1 : world.rank();
    i64 mine = has ? 1 : 0;
    std::vector<i64> all(static_cast<std::size_t>(world.size()));
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("agreement");
    world.all_gather(*stream, view_of(&mine, {1}), view_of(all.data(), {world.size()}), label);
    const auto none = std::find(all.begin(), all.end(), 0);
    return none == all.end() ? -1 : static_cast<int>(none - all.begin());
}

}  // namespace moesaic
