#include "tests/cuda_host/modes.h"

namespace cuda_host {

std::vector<Mode> modes() {
    return {{"emulated", Layer::emulated, {}}};
}

std::vector<Mode> table_modes() {
    std::vector<Mode> runs;
    for (const std::uint64_t seed : {0, 1, 3})
        runs.push_back({"seed_" + std::to_string(seed), Layer::emulated, {.seed = seed}});
    return runs;
}

}  // namespace cuda_host
