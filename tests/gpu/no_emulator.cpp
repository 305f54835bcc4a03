// What tests ask of the emulator, for tests on a GPU: nothing is chosen and nothing watched.
#include <limits>

#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/modes.h"

namespace cuda_host {

Settings settings_of_environment() {
    return {};
}
void reset(const Settings&) {}
void leave() {}
std::string first_finding() {
    return {};
}
std::int64_t kernels_run() {
    return std::numeric_limits<std::int64_t>::max();
}
std::int64_t staged_bytes() {
    return 0;
}
std::int64_t live_allocations() {
    return 0;
}
std::vector<Mode> table_modes() {
    return {};
}

}  // namespace cuda_host
