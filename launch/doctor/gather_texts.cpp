#include "launch/doctor/gather_texts.h"

#include <numeric>

namespace moesaic {

std::vector<std::string> gather_texts(Communicator& world, const std::string& mine) {
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("doctor");
    std::vector<i64> sizes(static_cast<std::size_t>(world.size()));
    i64 size = std::ssize(mine);
    world.all_gather(*stream, view_of(&size, {1}), view_of(sizes.data(), {world.size()}), {"doctor: sizes"});
    const i64 total = std::accumulate(sizes.begin(), sizes.end(), i64{0});
    // Tensors hold numbers: a character each.
    std::vector<i32> own(mine.begin(), mine.end()), all(static_cast<std::size_t>(total));
    world.all_gather_rows(*stream, view_of(own.data(), {size, 1}), view_of(all.data(), {total, 1}), sizes,
                          {"doctor: reports"});
    stream->synchronize();
    std::vector<std::string> texts;
    auto first = all.begin();
    for (const i64 one : sizes) {
        texts.emplace_back(first, first + one);
        first += one;
    }
    return texts;
}

}  // namespace moesaic
