// What tests ask of the emulator, for tests on a GPU: nothing is chosen and nothing watched.
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>

#include "runtime/cuda/check.h"
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
namespace {
std::atomic<bool> held = false;
void wait_until_let_go(void*) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (held && std::chrono::steady_clock::now() < end) std::this_thread::yield();
}
}  // namespace
Hold::Hold(cudaStream_t stream) {
    held = true;
    moesaic::cuda::check(cudaLaunchHostFunc(stream, wait_until_let_go, nullptr), "holding a stream");
}
Hold::~Hold() {
    held = false;
}
std::int64_t live_allocations() {
    return 0;
}
std::vector<Mode> table_modes() {
    return {};
}

}  // namespace cuda_host
