#include "tests/cuda_host/checker.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/locations.h"
#include "tests/cuda_host/memory.h"

namespace cuda_host {

namespace {

constexpr std::size_t kGranule = 2;  // bytes of a cell: the smallest elements that kernels have

/// Zeros, of which only what is touched takes memory.
void* addresses(std::size_t bytes) {
    void* const room =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) throw std::runtime_error("no addresses for what the memory checker remembers");
    return room;
}

const char* name_of(Access access) {
    return access == Access::read ? "read" : access == Access::write ? "write" : "atomic";
}

}  // namespace

void join(Clock& clock, const Clock& other) {
    if (clock.size() < other.size()) clock.resize(other.size());
    for (std::size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

void Checker::activate(bool wanted) {
    if (!wanted) {
        active_ = nullptr;
        return;
    }
    static Checker checker;
    if (active_) return;
    active_ = &checker;
    DeviceMemory::instance().for_each_block([](const void* data, std::size_t bytes) {
        checker.allocated(data, bytes);
        for (std::size_t i = 0; i < bytes; i += kGranule)
            checker.cell_of(static_cast<const char*>(data) + i)->flags |= written;
    });
}

Checker::~Checker() {
    if (std::getenv("MOESAIC_EMULATED_CHECK"))
        fmt::print(stderr, "emulated GPUs: {} accesses of kernels checked\n", accesses_);
}

Checker::Checker()
    : device_(DeviceMemory::instance().begin()), shared_(BlockExecutor::instance().shared_memory()) {
    device_cells_ = static_cast<Cell*>(addresses(kDevice / kGranule * sizeof(Cell)));
    shared_cells_ = static_cast<Cell*>(addresses(kShared / kGranule * sizeof(Cell)));
    items_.push_back({0, 0, "the host"});
    runs_.push_back({0, 0});
}

Checker::Cell* Checker::cell_of(const void* data) const {
    if (const std::size_t offset = offset_of(data, device_); offset < kDevice)
        return device_cells_ + offset / kGranule;
    if (const std::size_t offset = offset_of(data, shared_); offset < kShared)
        return shared_cells_ + offset / kGranule;
    return nullptr;
}

void Checker::allocated(const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    if (offset_of(data, device_) + bytes > kDevice)
        throw std::runtime_error("more memory than the checker watches");
    Cell* const first = cell_of(data);
    std::fill(first, first + (bytes + kGranule - 1) / kGranule, Cell{.flags = known});
}

void Checker::released(const void* data, std::size_t bytes) {
    Cell* const first = cell_of(data);
    for (std::size_t i = 0; i < (bytes + kGranule - 1) / kGranule; ++i) first[i].flags |= freed;
}

void Checker::begin_item(std::uint32_t stream, std::uint32_t number, const Clock& clock,
                         const std::string& what) {
    item_ = static_cast<std::uint32_t>(items_.size());
    items_.push_back({stream, number, what});
    clock_ = clock;
    in_block_ = false;
    run_ = static_cast<std::uint32_t>(runs_.size());
    runs_.push_back({item_, 0});
}

void Checker::item_access(const void* data, std::size_t bytes, Access access) {
    if (offset_of(data, device_) < kDevice) touch_range(data, bytes, {.run = run_, .access = access});
}

void Checker::begin_block(std::uint32_t block, std::size_t threads) {
    run_ = static_cast<std::uint32_t>(runs_.size());
    runs_.push_back({item_, block});
    threads_.assign(threads, {.own = 1});
    latest_ = barrier_time_ = 1;
    std::fill(shared_cells_, shared_cells_ + shared_used_ / kGranule, Cell{});
    shared_used_ = 0;
    in_block_ = true;
}

void Checker::shared_array(const void* data, std::size_t bytes) {
    Cell* const first = cell_of(data);
    const std::size_t cells = (bytes + kGranule - 1) / kGranule;
    std::fill(first, first + cells, Cell{.flags = known});
    shared_used_ = std::max(shared_used_, offset_of(data, shared_) + cells * kGranule);
}

void Checker::barrier() {
    barrier_time_ = ++latest_;
    for (ThreadTime& thread : threads_) thread.own = barrier_time_;
}

void Checker::warp_sync(std::size_t first_thread, std::uint32_t lanes) {
    ThreadTime met;
    for (std::size_t lane = 0; lane < 32; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const ThreadTime& thread = threads_[first_thread + lane];
        for (std::size_t other = 0; other < 32; ++other)
            met.seen[other] = std::max(met.seen[other], thread.seen[other]);
        met.seen[lane] = std::max(met.seen[lane], thread.own);
        met.own = std::max(met.own, thread.own);
    }
    latest_ = std::max(latest_, ++met.own);
    for (std::size_t lane = 0; lane < 32; ++lane)
        if (lanes >> lane & 1) threads_[first_thread + lane] = met;
}

void Checker::access(const void* data, std::size_t bytes, Access access, bool aligned, Location location) {
    ++accesses_;
    const std::size_t thread = BlockExecutor::instance().running_thread();
    const Stamp mine{run_, threads_[thread].own, static_cast<std::uint16_t>(thread), access, location};
    if (aligned && reinterpret_cast<std::uintptr_t>(data) % bytes != 0)
        fail(fmt::format("misaligned: {} of {} bytes", text_of(mine), bytes));
    touch_range(data, bytes, mine);
}

void Checker::touch_range(const void* data, std::size_t bytes, const Stamp& mine) {
    if (bytes == 0) return;
    const auto* const first = static_cast<const char*>(data);
    const char* at = first - reinterpret_cast<std::uintptr_t>(first) % kGranule;
    Cell* cell = cell_of(at);
    const Cell* const last = cell_of(first + bytes - 1);
    if (!cell || !last) outside(nullptr, at, mine);
    for (; cell <= last; ++cell, at += kGranule) {
        if (!(cell->flags & known) || (cell->flags & freed)) outside(cell, at, mine);
        if (mine.access != Access::write && !(cell->flags & written)) {
            // Of the access's bytes that share a word, as half a number may be poison by chance.
            const char* const word = at - reinterpret_cast<std::uintptr_t>(at) % 8;
            const char *const begin = std::max(word, first), *const end = std::min(word + 8, first + bytes);
            const bool on_device =
                offset_of(at, device_) < kDevice;  // which the host may have written unseen
            if (!on_device || is_poison(begin, static_cast<std::size_t>(end - begin)))
                fail("uninitialised: " + text_of(mine));
            cell->flags |= written;
        }
        touch(*cell, mine);
    }
}

void Checker::touch(Cell& cell, const Stamp& mine) {
    const bool atomics = mine.access == Access::atomic && cell.writer.access == Access::atomic;
    if (!atomics && !is_before(cell.writer, mine)) race(cell.writer, mine);
    if (mine.access == Access::read) return add_reader(cell, mine);
    if (const std::optional<Stamp> reader = unordered_reader(cell, mine)) race(*reader, mine);
    cell = {.writer = mine, .flags = static_cast<std::uint8_t>(known | written)};
}

bool Checker::is_before(const Stamp& earlier, const Stamp& mine) const {
    if (earlier.run == 0) return true;
    if (earlier.run == mine.run) {
        if (earlier.thread == mine.thread || earlier.time < barrier_time_) return true;
        return earlier.thread / 32 == mine.thread / 32 &&
               threads_[mine.thread].seen[earlier.thread % 32] >= earlier.time;
    }
    if (runs_[earlier.run].item == item_) return false;
    const Item& item = items_[runs_[earlier.run].item];
    return item.stream < clock_.size() && clock_[item.stream] >= item.number;
}

/// Of the readers that a cell remembers, one that is not before.
std::optional<Checker::Stamp> Checker::unordered_reader(const Cell& cell, const Stamp& mine) const {
    if (!is_before(cell.elsewhere, mine)) return cell.elsewhere;
    const Stamp& reader = cell.reader;
    if (!is_before(reader, mine)) return reader;
    if (reader.run == 0) return {};
    if ((cell.flags & other_blocks) && runs_[reader.run].item == item_) return reader;
    if (reader.run != mine.run || reader.time < barrier_time_) return {};
    if (cell.flags & other_warps) return reader;
    for (std::size_t lane = 0; lane < 32; ++lane) {
        const bool reads = (cell.lanes >> lane & 1) && lane != mine.thread % 32;
        if (!reads || threads_[mine.thread].seen[lane] >= reader.time) continue;
        Stamp of_lane = reader;
        of_lane.thread = static_cast<std::uint16_t>(mine.thread / 32 * 32 + lane);
        return of_lane;
    }
    return {};
}

void Checker::add_reader(Cell& cell, const Stamp& mine) const {
    const std::uint32_t my_lane = 1u << mine.thread % 32;
    const Stamp old = cell.reader;
    if (!unordered_reader(cell, mine)) {
        cell.flags &= static_cast<std::uint8_t>(~(other_warps | other_blocks));
        cell.lanes = my_lane;
        cell.elsewhere = {};
    } else if (old.run == mine.run) {
        const bool same_warp = old.thread / 32 == mine.thread / 32;
        if (!same_warp) cell.flags |= other_warps;
        cell.lanes = same_warp ? cell.lanes | my_lane : my_lane;
    } else {
        if (runs_[old.run].item == item_) {
            cell.flags |= other_blocks;
        } else if (old.run != 0) {
            cell.elsewhere = old;
            cell.flags &= static_cast<std::uint8_t>(~(other_warps | other_blocks));
        }
        cell.lanes = my_lane;
    }
    cell.reader = mine;
    // Of several lanes, the earliest: a conflict may be missed, none is invented.
    if (old.run == mine.run && (cell.lanes & ~my_lane)) cell.reader.time = std::min(old.time, mine.time);
}

void note_atomic(const void* data, std::size_t bytes, Place place) {
    Checker* const checker = Checker::active();
    if (checker && checker->watches(data))
        checker->access(data, bytes, Access::atomic, true, location_of(place));
}

std::string Checker::text_of(const Stamp& stamp) const {
    const Item& item = items_[runs_[stamp.run].item];
    if (stamp.location == 0) return fmt::format("{} by {}", name_of(stamp.access), item.what);
    return fmt::format("{} at {} by thread {} of block {} of {}", name_of(stamp.access),
                       cuda_host::text_of(stamp.location), stamp.thread, runs_[stamp.run].block, item.what);
}

void Checker::outside(const Cell* cell, const char* at, const Stamp& mine) const {
    if (cell && (cell->flags & freed)) fail("use after free: " + text_of(mine));
    const bool on_device = offset_of(at, device_) < kDevice;
    fail(
        fmt::format("out of bounds: {}, {}", text_of(mine),
                    on_device ? DeviceMemory::instance().where(at) : "outside of the block's shared arrays"));
}

void Checker::race(const Stamp& earlier, const Stamp& mine) const {
    const bool of_others =
        earlier.run == mine.run && earlier.thread == mine.thread;  // only the last one is known
    fail(fmt::format("race: {}, and nothing orders it after the {}{}", text_of(mine), text_of(earlier),
                     of_others ? ", and by other threads of the block" : ""));
}

void Checker::fail(const std::string& what) const {
    if (in_block_) BlockExecutor::instance().stop(what);
    throw KernelFault(what);
}

}  // namespace cuda_host
