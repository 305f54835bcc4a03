#include "tests/cuda_host/block.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "tests/cuda_host/checker.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/sanitizer.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_host {

namespace {

constexpr std::size_t kSharedRoom = 1 << 20, kGuard = 64, kMostStatic = 48 * 1024, kMostDynamic = 227 * 1024;

const char* name_of(WarpOperation operation) {
    return operation == WarpOperation::shuffle  ? "shuffle"
           : operation == WarpOperation::ballot ? "ballot"
           : operation == WarpOperation::gather ? "matrix operation"
                                                : "sync";
}

}  // namespace

BlockExecutor& BlockExecutor::instance() {
    static BlockExecutor executor;
    return executor;
}

void BlockExecutor::set_seed(std::uint64_t seed) {
    seed_ = seed;
    random_.seed(seed);
}

void BlockExecutor::run(const Launch& launch) {
    const std::size_t threads = std::size_t{launch.block.x} * launch.block.y * launch.block.z;
    if (threads == 0 || threads > 1024 || launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.y > 65535 ||
        launch.grid.z != 1 || launch.shared_bytes > kMostDynamic)
        throw KernelFault(fmt::format("{}: {} threads a block, grid {}x{}x{}, {} bytes of shared memory",
                                      launch.kernel, threads, launch.grid.x, launch.grid.y, launch.grid.z,
                                      launch.shared_bytes));
    launch_ = &launch;
    gridDim = launch.grid;
    blockDim = launch.block;
    arrays_.clear();
    static_bytes_ = 0;
    shared_used_ = launch.shared_bytes + kGuard;
    threads_.resize(threads);
    warps_.resize((threads + 31) / 32);
    order_.resize(threads);
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    if (seed_ == 1) std::reverse(order_.begin(), order_.end());
    for (unsigned y = 0; y < launch.grid.y; ++y) {
        for (unsigned x = 0; x < launch.grid.x; ++x) {
            blockIdx = {x, y, 0};
            run_block();
        }
    }
}

void BlockExecutor::shuffle_order() {
    if (seed_ > 1) std::shuffle(order_.begin(), order_.end(), random_);
}

void BlockExecutor::run_block() {
    for (Thread& thread : threads_) thread = {};
    for (std::size_t warp = 0; warp < warps_.size(); ++warp) {
        const std::size_t lanes = std::min<std::size_t>(32, threads_.size() - warp * 32);
        warps_[warp].existing = lanes == 32 ? ~0u : (1u << lanes) - 1;
        warps_[warp].done = 0;
        warps_[warp].meetings.clear();
    }
    Checker* const checker = Checker::active();
    if (checker) checker->begin_block(blockIdx.y * gridDim.x + blockIdx.x, threads_.size());
    clear_shared();
    done_ = 0;
    fault_.clear();
    while (done_ < threads_.size()) {
        bool progress = false;
        shuffle_order();
        for (position_ = 0; position_ < order_.size(); ++position_) {
            const std::size_t thread = order_[position_];
            if (threads_[thread].state != State::fresh && threads_[thread].state != State::ready) continue;
            progress = true;
            resume(thread);
            if (!fault_.empty()) break;
        }
        if (fault_.empty() && !progress) release_barrier();
        if (!fault_.empty()) {
            for (Thread& thread : threads_) {  // what stands on these stacks is of no use any more
                if (!thread.fiber || thread.state == State::done) continue;
                thread.fiber->restart();
                idle_.push_back(thread.fiber);
            }
            if (checker) checker->end_block();
            throw KernelFault(fault_);
        }
    }
    if (checker) checker->end_block();
}

Fiber* BlockExecutor::take_fiber() {
    if (idle_.empty()) {
        fibers_.push_back(std::make_unique<Fiber>());
        fibers_.back()->work = [this] { work_on_fiber(); };
        return fibers_.back().get();
    }
    Fiber* const fiber = idle_.back();
    idle_.pop_back();
    return fiber;
}

void BlockExecutor::select(std::size_t thread) {
    current_ = thread;
    const auto x = static_cast<unsigned>(thread);
    if (x < blockDim.x) {
        threadIdx = {x, 0, 0};
        return;
    }
    threadIdx = {x % blockDim.x, x / blockDim.x % blockDim.y, x / blockDim.x / blockDim.y};
}

void BlockExecutor::resume(std::size_t thread) {
    if (threads_[thread].state == State::fresh) threads_[thread].fiber = take_fiber();
    select(thread);
    threads_[thread].fiber->resume();
}

void BlockExecutor::end_thread() {
    if (!copies().empty()) fail(fmt::format("thread {} ends before its copies to shared memory", current_));
    threads_[current_].state = State::done;
    warps_[current_ / 32].done |= 1u << current_ % 32;
    ++done_;
}

/// Runs a thread, and those after it that have not begun: who never waits costs no switch.
void BlockExecutor::work_on_fiber() {
    Fiber* const fiber = threads_[current_].fiber;
    for (;;) {
        launch_->thread();
        end_thread();
        if (position_ + 1 == order_.size() || threads_[order_[position_ + 1]].state != State::fresh) break;
        select(order_[++position_]);
        threads_[current_].fiber = fiber;
    }
    idle_.push_back(fiber);
}

void BlockExecutor::wait(Thread& thread, State state) {
    const std::size_t number = current_;
    thread.state = state;
    thread.fiber->yield();
    select(number);
}

std::string BlockExecutor::where(std::size_t number) const {
    const Thread& thread = threads_[number];
    const std::string what = thread.state == State::done ? "has ended"
                             : thread.state == State::at_barrier
                                 ? "waits at a barrier"
                                 : "is in a warp " + std::string(name_of(thread.operation));
    const std::string place =
        thread.state == State::done ? "" : fmt::format(" at {}:{}", thread.place.file, thread.place.line);
    return fmt::format("thread {} {}{}", number, what, place);
}

void BlockExecutor::stop(const std::string& report) {
    fault_ = report;
    threads_[current_].fiber->yield();
    __builtin_unreachable();
}

void BlockExecutor::fail(const std::string& what) {
    stop(fmt::format("{}, block {},{}: {}", launch_->kernel, blockIdx.x, blockIdx.y, what));
}

void BlockExecutor::barrier(Place place) {
    Thread& mine = threads_[current_];
    mine.place = place;
    wait(mine, State::at_barrier);
}

void BlockExecutor::pause() {
    wait(threads_[current_], State::ready);
}

/// Nobody can go on: all stand at one barrier, or never will.
void BlockExecutor::release_barrier() {
    std::size_t first = 0;
    const auto say = [&](std::size_t other, const char* what) {
        fault_ = fmt::format("{}, block {},{}: {}: {}, {}", launch_->kernel, blockIdx.x, blockIdx.y, what,
                             where(first), where(other));
    };
    while (threads_[first].state == State::done) ++first;
    for (std::size_t other = 0; other < threads_.size(); ++other) {
        const Thread &a = threads_[first], &b = threads_[other];
        if (b.state != a.state) return say(other, "divergence");
        if (a.state == State::at_barrier && (a.place.line != b.place.line || a.place.file != b.place.file))
            return say(other, "two barriers at once");
    }
    if (threads_[first].state != State::at_barrier) return say(first, "deadlock");
    for (Thread& thread : threads_) thread.state = State::ready;
    if (Checker* const checker = Checker::active()) checker->barrier();
}

/// The meeting of those lanes, which has to be the same for all of them.
BlockExecutor::Meeting& BlockExecutor::join(WarpState& warp, const Meeting& mine) {
    if (warp.done & mine.mask) {
        const auto lane = static_cast<std::size_t>(std::countr_zero(warp.done & mine.mask));
        fail(fmt::format("divergent warp {}: {}, {}", name_of(mine.operation), where(current_),
                         where(current_ / 32 * 32 + lane)));
    }
    for (Meeting& other : warp.meetings) {
        if (!(other.mask & mine.mask)) continue;
        const bool same = other.mask == mine.mask && other.operation == mine.operation &&
                          other.place.line == mine.place.line && other.place.file == mine.place.file;
        if (!same)
            fail(fmt::format("divergent warp {}: {}, {}", name_of(mine.operation), where(current_),
                             where(other.first)));
        return other;
    }
    warp.meetings.push_back(mine);
    return warp.meetings.back();
}

/// What the lanes brought, on the stacks where they wait, to where it stays until all have read it.
void BlockExecutor::share_words(std::size_t first, const Meeting& meeting) {
    if (meeting.arrived != ~0u)
        fail(fmt::format("a matrix operation by part of a warp ({:08x}), at {}:{}", meeting.arrived,
                         meeting.place.file, meeting.place.line));
    WarpWords& words = warps_[first / 32].words;
    for (std::size_t lane = 0; lane < 32; ++lane) {
        Thread& thread = threads_[first + lane];
        std::memcpy(words.of[lane], reinterpret_cast<const void*>(thread.value), sizeof words.of[lane]);
        thread.state = State::ready;
    }
}
const WarpWords& BlockExecutor::gather(const std::uint32_t (&mine)[WarpWords::kMost], Place place) {
    meet(WarpOperation::gather, ~0u, reinterpret_cast<std::uint64_t>(&mine), 0, place);
    return warps_[current_ / 32].words;
}

/// All have come: everybody gets what it came for. `first` is the warp's first thread.
void BlockExecutor::finish(std::size_t first, const Meeting& meeting) {
    if (Checker* const checker = Checker::active(); checker && meeting.operation == WarpOperation::sync)
        checker->warp_sync(first, meeting.arrived);
    if (meeting.operation == WarpOperation::gather) return share_words(first, meeting);
    std::uint64_t brought[32];
    std::uint64_t ballot = 0;
    for (std::size_t lane = 0; lane < 32; ++lane) {
        if (!(meeting.arrived >> lane & 1)) continue;
        brought[lane] = threads_[first + lane].value;
        if (brought[lane]) ballot |= std::uint64_t{1} << lane;
    }
    for (std::size_t lane = 0; lane < 32; ++lane) {
        if (!(meeting.arrived >> lane & 1)) continue;
        Thread& thread = threads_[first + lane];
        thread.state = State::ready;
        if (meeting.operation == WarpOperation::shuffle) {
            if (!(meeting.arrived >> thread.source & 1))
                fail(fmt::format("lane {} reads lane {}, which takes no part (mask {:08x}), at {}:{}", lane,
                                 thread.source, meeting.mask, meeting.place.file, meeting.place.line));
            thread.value = brought[thread.source];
        } else {
            thread.value = ballot;
        }
    }
}

std::uint64_t BlockExecutor::meet(WarpOperation operation, unsigned mask, std::uint64_t value, int source,
                                  Place place) {
    Thread& mine = threads_[current_];
    WarpState& warp = warps_[current_ / 32];
    const std::size_t lane = current_ % 32, first = current_ - lane;
    mine.place = place;
    mine.operation = operation;
    mine.value = value;
    mine.source = source & 31;
    mine.state = State::in_warp;
    if (!(mask >> lane & 1))
        fail(fmt::format("lane {} is not in the mask {:08x} that it names, line {}", lane, mask, place.line));
    Meeting& meeting = join(warp, {operation, mask, 0, place, current_});
    meeting.arrived |= 1u << lane;
    if (meeting.arrived == (mask & warp.existing)) {
        const Meeting complete = meeting;
        std::swap(meeting, warp.meetings.back());
        warp.meetings.pop_back();
        finish(first, complete);
    } else {
        wait(mine, State::in_warp);
    }
    return mine.value;
}

const char* BlockExecutor::shared_memory() {
    if (!shared_) {
        void* const room =
            mmap(nullptr, kSharedRoom, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED) throw std::runtime_error("no memory for shared memory");
        shared_ = static_cast<char*>(room);
    }
    return shared_;
}

/// Every block finds poison in its shared memory.
void BlockExecutor::clear_shared() {
    shared_memory();
    unpoison(shared_, shared_used_);
    fill_with_poison(shared_, shared_used_);
    if (Checker* const checker = Checker::active()) {
        checker->shared_array(shared_, launch_->shared_bytes);
        for (const Array& array : arrays_) checker->shared_array(shared_ + array.offset, array.bytes);
    }
    poison(shared_ + launch_->shared_bytes, kGuard);
    for (const Array& array : arrays_) poison(shared_ + array.offset + array.bytes, kGuard);
}

void* BlockExecutor::dynamic_array() {
    return shared_;
}

void* BlockExecutor::array(const void* key, std::size_t bytes, const char* name) {
    for (const Array& array : arrays_)
        if (array.key == key) return shared_ + array.offset;
    const std::size_t offset = (shared_used_ + 127) / 128 * 128;
    static_bytes_ += bytes;
    if (static_bytes_ > kMostStatic || offset + bytes + kGuard > kSharedRoom)
        fail(fmt::format("{} bytes of shared arrays with '{}'", static_bytes_, name));
    unpoison(shared_ + offset, bytes);
    fill_with_poison(shared_ + offset, bytes);
    if (Checker* const checker = Checker::active()) checker->shared_array(shared_ + offset, bytes);
    poison(shared_ + offset + bytes, kGuard);
    arrays_.push_back({key, offset, bytes});
    shared_used_ = offset + bytes + kGuard;
    return shared_ + offset;
}

void block_barrier(Place place) {
    BlockExecutor::instance().barrier(place);
}
const WarpWords& gather_words(const std::uint32_t (&mine)[WarpWords::kMost], Place place) {
    return BlockExecutor::instance().gather(mine, place);
}
std::vector<PendingCopy>& pending_copies() {
    return BlockExecutor::instance().copies();
}
std::uint64_t meet_warp(WarpOperation operation, unsigned mask, std::uint64_t value, int source,
                        Place place) {
    return BlockExecutor::instance().meet(operation, mask, value, source, place);
}
void* shared_array(const void* key, std::size_t bytes, const char* name) {
    return BlockExecutor::instance().array(key, bytes, name);
}
void* dynamic_shared() {
    return BlockExecutor::instance().dynamic_array();
}

}  // namespace cuda_host
