// What NCCL's kernels do, and whom they wait for.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "tests/cuda_host/nccl_ranks.h"
#include "tests/cuda_host/nccl_state.h"

namespace cuda_host {

namespace {

struct NcclWorld {
    std::set<NcclKernel*> queued;          // that are not complete
    std::map<int, NcclKernel*> on_device;  // for Settings::exclusive_nccl
};

NcclWorld& world() {
    static NcclWorld& all =
        *new NcclWorld;  // kernels that streams still hold at the end of the program need it
    return all;
}

const char* name_of(ncclDataType_t type) {
    constexpr std::array kNames{"int8",    "uint8",   "int32",   "uint32",   "int64",  "uint64",
                                "float16", "float32", "float64", "bfloat16", "float8", "float8"};
    return kNames.at(static_cast<std::size_t>(type));
}

const char* name_of(NcclKind kind) {
    constexpr std::array kNames{"send", "recv", "all-gather", "all-to-all", "broadcast", "all-reduce"};
    return kNames.at(static_cast<std::size_t>(kind));
}

bool is_pairwise(const NcclOperation& one) {
    return one.kind == NcclKind::send || one.kind == NcclKind::recv;
}

void fault(const std::string& what) {
    Scheduler::instance().find("NCCL: " + what);
}

std::string place_of(const NcclEnd& end) {
    return fmt::format("rank {} of '{}'", end.rank, end.group->name);
}

/// A collective between the ends' running kernels; null where one has none of this number yet.
NcclOperation* counterpart(const NcclEnd& end, std::uint64_t number) {
    if (!end.running) return nullptr;
    for (NcclOperation& one : end.running->operations)
        if (!is_pairwise(one) && one.number == number) return &one;
    return nullptr;
}

void match_pair(NcclKernel& sender, NcclOperation& send) {
    NcclEnd* const peer = sender.end->group->ends[static_cast<std::size_t>(send.peer)].get();
    if (!peer || !peer->running) return;
    for (NcclOperation& recv : peer->running->operations) {
        if (recv.kind != NcclKind::recv || recv.done || recv.peer != sender.end->rank) continue;
        if (recv.count != send.count || recv.type != send.type)
            return fault(fmt::format("{}: {}, but {}: {}", place_of(*sender.end), text_of(send),
                                     place_of(*peer), text_of(recv)));
        std::memmove(recv.to, send.from, send.count * size_of(send.type));
        send.done = recv.done = true;
        Scheduler::instance().note_progress();
        return;
    }
}

template <class T>
void reduce_as(const std::vector<NcclOperation*>& all) {
    std::vector<T> sum(all[0]->count);
    std::copy_n(static_cast<const T*>(all[0]->from), sum.size(), sum.begin());
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
        const T* const addend = static_cast<const T*>(all[rank]->from);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<T>(sum[i] + addend[i]);
    }
    for (NcclOperation* one : all) std::copy(sum.begin(), sum.end(), static_cast<T*>(one->to));
}

void reduce(const std::vector<NcclOperation*>& all) {
    if (all[0]->reduction != ncclSum) return fault("only sums are emulated");
    if (all[0]->type == ncclFloat32) return reduce_as<float>(all);
    if (all[0]->type == ncclFloat64) return reduce_as<double>(all);
    if (all[0]->type == ncclInt64) return reduce_as<std::int64_t>(all);
    if (all[0]->type == ncclInt32) return reduce_as<std::int32_t>(all);
    fault(fmt::format("sums of {} are not emulated", name_of(all[0]->type)));
}

/// Inputs are read before any output is written: buffers may be their own.
void move_blocks(const std::vector<NcclOperation*>& all) {
    const std::size_t bytes = all[0]->count * size_of(all[0]->type), ranks = all.size();
    const bool to_each = all[0]->kind == NcclKind::all_to_all;
    std::vector<std::vector<char>> inputs;
    for (const NcclOperation* one : all) {
        const char* const from = static_cast<const char*>(one->from);
        inputs.emplace_back(from, from + (to_each ? ranks : 1) * bytes);
    }
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        char* const to = static_cast<char*>(all[rank]->to);
        if (all[0]->kind == NcclKind::broadcast) {
            std::memcpy(to, inputs[static_cast<std::size_t>(all[0]->peer)].data(), bytes);
            continue;
        }
        for (std::size_t source = 0; source < ranks; ++source)
            std::memcpy(to + source * bytes, inputs[source].data() + (to_each ? rank * bytes : 0), bytes);
    }
}

void match_collective(const NcclKernel& kernel, const NcclOperation& mine) {
    std::vector<NcclOperation*> all;
    for (const auto& end : kernel.end->group->ends) {
        NcclOperation* const one = end ? counterpart(*end, mine.number) : nullptr;
        if (!one) return;
        const bool same = one->kind == mine.kind && one->count == mine.count && one->type == mine.type &&
                          one->peer == mine.peer && one->reduction == mine.reduction;
        if (!same)
            return fault(fmt::format("{}: {}, but {}: {}", place_of(*kernel.end), text_of(mine),
                                     place_of(*end), text_of(*one)));
        all.push_back(one);
    }
    mine.kind == NcclKind::all_reduce ? reduce(all) : move_blocks(all);
    for (NcclOperation* one : all) one->done = true;
    Scheduler::instance().note_progress();
}

/// NCCL_LAUNCH_ORDER_IMPLICIT: kernels of one device start in the order in which they were issued.
bool in_launch_order(const NcclKernel& kernel) {
    const char* const set = std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT");
    if (!set || std::strcmp(set, "1") != 0) return true;
    return std::none_of(world().queued.begin(), world().queued.end(), [&](const NcclKernel* other) {
        return other->end->device == kernel.end->device && other->launch < kernel.launch &&
               other->end->running != other;
    });
}

bool begin(NcclKernel& kernel) {
    NcclEnd& end = *kernel.end;
    if (end.running == &kernel) return true;
    if (end.running || kernel.number != end.completed || !in_launch_order(kernel)) return false;
    if (Scheduler::instance().settings.exclusive_nccl) {
        NcclKernel*& place = world().on_device[end.device];
        if (place) return false;
        place = &kernel;
    }
    end.running = &kernel;
    Scheduler::instance().note_progress();
    return true;
}

}  // namespace

std::size_t size_of(ncclDataType_t type) {
    constexpr std::array<std::size_t, ncclNumTypes> kBytes{1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return kBytes.at(static_cast<std::size_t>(type));
}

std::string text_of(const NcclOperation& one) {
    std::string text = fmt::format("{} of {} {}", name_of(one.kind), one.count, name_of(one.type));
    if (one.kind == NcclKind::send) text += fmt::format(" to rank {}", one.peer);
    if (one.kind == NcclKind::recv || one.kind == NcclKind::broadcast)
        text += fmt::format(" from rank {}", one.peer);
    return text;
}

void register_kernel(NcclKernel& kernel) {
    world().queued.insert(&kernel);
}

bool advance(NcclKernel& kernel) {
    if (kernel.end->aborted) return true;
    if (!begin(kernel)) return false;
    for (NcclOperation& one : kernel.operations) {
        if (one.done) continue;
        if (one.kind == NcclKind::send) {
            match_pair(kernel, one);
        } else if (one.kind == NcclKind::recv) {
            NcclEnd* const peer = kernel.end->group->ends[static_cast<std::size_t>(one.peer)].get();
            if (!peer || !peer->running) continue;
            for (NcclOperation& send : peer->running->operations)
                if (send.kind == NcclKind::send && !send.done && send.peer == kernel.end->rank)
                    match_pair(*peer->running, send);
        } else {
            match_collective(kernel, one);
        }
    }
    return std::ranges::all_of(kernel.operations, &NcclOperation::done);
}

void complete(NcclKernel& kernel) {
    ++kernel.end->completed;
    Checker* const checker = Checker::active();
    if (!checker || kernel.end->aborted) return;
    for (const NcclOperation& one : kernel.operations) {
        checker->item_access(one.from, one.from_bytes, Access::read);
        checker->item_access(one.to, one.to_bytes, Access::write);
    }
}

NcclKernel::~NcclKernel() {
    world().queued.erase(this);
    if (!end) return;
    if (end->running == this) end->running = nullptr;
    const auto place = world().on_device.find(end->device);
    if (place != world().on_device.end() && place->second == this) place->second = nullptr;
}

std::string nccl_waiting() {
    std::string text;
    for (const NcclKernel* kernel : world().queued) {
        for (const NcclOperation& one : kernel->operations) {
            if (one.done) continue;
            text += fmt::format("{}{}, stream {}: {}{}", text.empty() ? "" : "; ", place_of(*kernel->end),
                                kernel->stream, text_of(one),
                                kernel->end->running == kernel ? "" : " (not begun)");
        }
    }
    return text.empty() ? "nothing was sent" : text;
}

void reset_nccl() {
    world().queued.clear();
    world().on_device.clear();
}

}  // namespace cuda_host
