// The emulated GPU's streams: queues of which nothing runs until the host waits for something.
#pragma once

#include <cuda_runtime.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/cuda_host/checker.h"
#include "tests/cuda_host/emulator.h"

namespace cuda_host {

/// Clocks say what is over for sure when something begins: only what the checker needs to know.
struct EmulatedEvent {
    Clock clock;
    std::uint64_t recorded = 0, completed = 0;     ///< numbers of records
    std::chrono::steady_clock::time_point when{};  ///< of the last completed one
};

struct EmulatedStream {
    struct Item {
        std::function<void()> work;
        std::function<bool()>
            ready{};  ///< of work that meets other ranks' (NCCL): tries, and says whether it may run
        EmulatedEvent* waits_for = nullptr;  ///< and the record of it that has to be completed
        std::uint64_t record = 0;
        EmulatedEvent* completes = nullptr;
        std::string what = {};     ///< for reports
        std::uint32_t number = 0;  ///< in its stream
        Clock clock = {};
    };
    int number = 0;
    std::uint32_t slot = 0, enqueued = 0;  ///< slots of clocks are used again
    Clock clock;                           ///< of what is enqueued next
    std::deque<Item> items;
    [[nodiscard]] bool runnable() const {
        if (items.empty()) return false;
        const Item& first = items.front();
        return first.ready ? first.ready() : !first.waits_for || first.waits_for->completed >= first.record;
    }
};

/// The error that cudaGetLastError tells this thread next.
void keep_error(cudaError_t error);

/// All of one process: ranks that are threads share it under its lock.
class Scheduler {
  public:
    static Scheduler& instance();

    void reset(const Settings& settings);
    EmulatedStream* make_stream();
    void destroy(EmulatedStream* stream);
    EmulatedEvent* make_event();
    /// Null streams and streams that are gone are findings.
    cudaError_t enqueue(cudaStream_t stream, EmulatedStream::Item item);
    cudaError_t record(cudaEvent_t event, cudaStream_t stream);
    cudaError_t wait(cudaStream_t stream, cudaEvent_t event);
    cudaError_t run_until_empty(cudaStream_t stream);
    /// Runs one item of some stream; cudaErrorNotReady while `stream` has any.
    cudaError_t query(cudaStream_t stream);
    cudaError_t query(cudaEvent_t event);
    /// Keeps the first finding; from then on every call that waits fails.
    cudaError_t find(const std::string& what);

    std::recursive_mutex mutex;
    Settings settings = settings_of_environment();
    std::string finding;
    std::int64_t kernels = 0;
    std::map<const void*, std::size_t> pinned{};  ///< blocks of page-locked host memory
    [[nodiscard]] bool is_pinned(const void* data, std::size_t bytes) const;
    std::int64_t staged_bytes = 0;  ///< copied from and to such memory
    std::int64_t gone = 0;          ///< ranks that have left
    /// Something has happened that may let somebody go on.
    void note_progress();

  private:
    Scheduler();
    /// Nothing can run until another thread does something: lets it, or finds that all threads wait.
    void let_others_work();
    struct Waiting {
        std::uint64_t progress = 0;
        int tries = 0;  ///< since then, in vain
        std::chrono::steady_clock::time_point since{};
    };
    EmulatedStream* known(cudaStream_t stream);
    EmulatedStream* choose(EmulatedStream* awaited);
    void run_head(EmulatedStream& stream);

    std::mt19937_64 random_;
    std::vector<std::unique_ptr<EmulatedStream>> streams_;
    std::vector<std::unique_ptr<EmulatedEvent>> events_;
    std::map<std::thread::id, Waiting> waiting_;
    std::uint64_t progress_ = 0;
    std::condition_variable_any changed_;
    int made_ = 0;
    Clock host_clock_;  // what the host has waited for
    std::vector<std::uint32_t> free_slots_;
    std::vector<std::uint32_t> last_of_slot_;
};

}  // namespace cuda_host
