#include "launch/weights_checksum.h"

#include <fmt/format.h>

#include <numeric>
#include <utility>
#include <vector>

#include "runtime/base/philox.h"

namespace moesaic {

namespace {

u64 checksum_of(const Parameter& parameter) {
    const ConstTensorView value = parameter.value;
    const u64 bytes =
        hash_name({static_cast<const char*>(value.data), static_cast<std::size_t>(value.bytes())});
    return hash_name(fmt::format("{} slice {}: {:x}", parameter.name, parameter.slice.index, bytes));
}

}  // namespace

u64 weights_checksum(RankRuntime& runtime) {
    runtime.compute->synchronize();
    u64 replicated = 0, experts = 0;
    for (const Parameter& parameter : std::as_const(runtime.store).parameters()) {
        (parameter.placement == Placement::expert ? experts : replicated) += checksum_of(parameter);
    }
    Communicator& group = runtime.mesh->experts();
    std::vector<i64> all(static_cast<std::size_t>(group.size()));
    auto mine = static_cast<i64>(experts);
    group.all_gather(*runtime.exchange, view_of(&mine, {1}), view_of(all.data(), {group.size()}),
                     {"checksums of the weights"});
    runtime.exchange->synchronize();
    return std::accumulate(all.begin(), all.end(), replicated,
                           [](u64 sum, i64 one) { return sum + static_cast<u64>(one); });
}

}  // namespace moesaic
