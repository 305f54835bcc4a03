// Who accessed which memory last, and whether anything orders two accesses: CUDA's rules, for kernels that
// g++ instruments (tsan_entry.cpp) and for PTX (ptx_thread.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/cuda_host/locations.h"

namespace cuda_host {

/// By stream: how many of its items are over for sure. Missing entries are 0.
using Clock = std::vector<std::uint32_t>;
void join(Clock& clock, const Clock& other);

enum class Access : std::uint8_t { read, write, atomic };

/// What CUDA calls happens-before, exactly:
/// - items of streams by vector clocks: stream order, events, waits of the host;
/// - blocks of one launch: never;
/// - threads of a block: by barriers of the block, and within a warp by `__syncwarp` (shuffles and votes
/// order no
///   memory). Atomics do not race with each other, and order nothing.
/// Every two bytes of memory remember their last writer, one reader, a reader of another stream, and which
/// lanes, warps or blocks read with that reader. So a conflict may hide behind another; none is invented,
/// except where blocks hand over through flags, which kernels must not do.
class Checker {
  public:
    /// Null where nothing is checked.
    static Checker* active() { return active_; }
    /// From now on, or no longer. Memory that is allocated already counts as written.
    static void activate(bool wanted);
    /// Says how many accesses it has seen where MOESAIC_EMULATED_CHECK asked for it: nobody can tell from no
    /// finding that anything was looked at.
    ~Checker();
    Checker(const Checker&) = delete;
    Checker& operator=(const Checker&) = delete;

    // From memory and streams.
    void allocated(const void* data, std::size_t bytes);
    void released(const void* data, std::size_t bytes);
    /// What happens next belongs to this item of a stream.
    void begin_item(std::uint32_t stream, std::uint32_t number, const Clock& clock, const std::string& what);
    /// The item's own access, as of a copy. Throws KernelFault.
    void item_access(const void* data, std::size_t bytes, Access access);

    // From the block executor.
    void begin_block(std::uint32_t block, std::size_t threads);
    void shared_array(const void* data, std::size_t bytes);
    void barrier();
    void warp_sync(std::size_t first_thread, std::uint32_t lanes);
    void end_block() { in_block_ = false; }

    /// By the thread that runs. Reports by BlockExecutor::fail.
    void access(const void* data, std::size_t bytes, Access access, bool aligned, Location location);
    /// Whether accesses to it are of interest: a kernel's stack is not.
    [[nodiscard]] bool watches(const void* data) const {
        return in_block_ && (offset_of(data, device_) < kDevice || offset_of(data, shared_) < kShared);
    }

    static constexpr std::size_t kDevice = std::size_t{4} << 30, kShared = std::size_t{1} << 20;

  private:
    /// By one thread: who and when.
    struct Stamp {
        std::uint32_t run = 0;  // a block of a launch; 0 is the host
        std::uint32_t time = 0;
        std::uint16_t thread = 0;
        Access access = Access::read;
        Location location = 0;
    };
    enum Flag : std::uint8_t { known = 1, freed = 2, written = 4, other_warps = 8, other_blocks = 16 };
    struct Cell {
        Stamp writer{}, reader{}, elsewhere{};
        std::uint32_t lanes = 0;  // that read with the reader
        std::uint8_t flags = 0;
    };
    struct Item {
        std::uint32_t stream, number;
        std::string what;
    };
    struct Run {
        std::uint32_t item, block;
    };
    struct ThreadTime {
        std::uint32_t own = 0;
        std::uint32_t seen[32] = {};  // of the lanes of its warp
    };

    Checker();
    static std::size_t offset_of(const void* data, const char* base) {
        return static_cast<std::size_t>(static_cast<const char*>(data) - base);
    }
    [[nodiscard]] Cell* cell_of(const void* data) const;
    [[nodiscard]] bool is_before(const Stamp& earlier, const Stamp& mine) const;
    [[nodiscard]] std::optional<Stamp> unordered_reader(const Cell& cell, const Stamp& mine) const;
    void touch_range(const void* data, std::size_t bytes, const Stamp& mine);
    void touch(Cell& cell, const Stamp& mine);
    void add_reader(Cell& cell, const Stamp& mine) const;
    [[noreturn]] void outside(const Cell* cell, const char* at, const Stamp& mine) const;
    [[noreturn]] void race(const Stamp& earlier, const Stamp& mine) const;
    [[nodiscard]] std::string text_of(const Stamp& stamp) const;
    [[noreturn]] void fail(const std::string& what) const;

    static inline Checker* active_ = nullptr;

    const char *device_, *shared_;
    Cell *device_cells_, *shared_cells_;
    std::vector<Item> items_;
    std::vector<Run> runs_;
    Clock clock_;  // of the running item
    std::uint32_t item_ = 0, run_ = 0, barrier_time_ = 0, latest_ = 0;
    std::vector<ThreadTime> threads_;
    std::size_t shared_used_ = 0;  // bytes whose cells are not zeros
    bool in_block_ = false;
    std::int64_t accesses_ = 0;
};

}  // namespace cuda_host
