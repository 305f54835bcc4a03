// NCCL's functions for ranks that are threads of one process, each with an emulated GPU. Only what is told
// not to block is offered: a call that blocks has no time-out.
#include <nccl.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/nccl_ranks.h"
#include "tests/cuda_host/nccl_state.h"

namespace {

using namespace cuda_host;
using Lock = std::scoped_lock<std::recursive_mutex>;

Scheduler& scheduler() {
    return Scheduler::instance();
}

std::map<std::string, std::shared_ptr<NcclGroup>> worlds;  // by id; under the scheduler's lock
std::map<int, std::uint64_t> launches;                     // by device
std::string last_error;

ncclResult_t refuse(ncclResult_t result, const std::string& what) {
    last_error = what;
    return result;
}

/// Operations between ncclGroupStart and ncclGroupEnd, of the calling thread.
struct Pending {
    ncclComm_t communicator;
    cudaStream_t stream;
    NcclOperation operation;
};
thread_local int group_depth = 0;
thread_local std::vector<Pending> pending;

bool complete_group(const NcclGroup& group) {
    return std::ranges::all_of(group.ends, [](const auto& end) { return end != nullptr; });
}

/// As NCCL does when all have joined.
void refuse_shared_devices(const NcclGroup& group) {
    for (const auto& one : group.ends) {
        for (const auto& other : group.ends) {
            if (one->rank >= other->rank || one->device != other->device) continue;
            refuse(ncclInvalidUsage, fmt::format("Duplicate GPU detected : rank {} and rank {} both on CUDA "
                                                 "device {}",
                                                 one->rank, other->rank, one->device));
            for (const auto& each : group.ends) each->failure = ncclInvalidUsage;
            return;
        }
    }
}

void form_groups(NcclGroup::Split& split) {
    std::map<int, std::vector<std::pair<int, std::size_t>>> members;  // color -> (key, rank)
    for (std::size_t rank = 0; rank < split.entries.size(); ++rank)
        if (split.entries[rank]->color >= 0)
            members[split.entries[rank]->color].emplace_back(split.entries[rank]->key, rank);
    for (auto& [color, ranks] : members) {
        std::ranges::sort(ranks);
        const auto group = std::make_shared<NcclGroup>();
        group->name = split.name;
        for (const auto& [key, rank] : ranks) {
            const auto end = split.entries[rank]->end;
            end->group = group;
            end->rank = static_cast<int>(group->ends.size());
            group->ends.push_back(end);
        }
    }
}

/// Those of one communicator are one kernel.
ncclResult_t launch_pending() {
    std::vector<std::shared_ptr<NcclKernel>> kernels;
    std::vector<cudaStream_t> streams;
    for (const Pending& one : pending) {
        const auto& end = one.communicator->end;
        const auto same =
            std::ranges::find_if(kernels, [&](const auto& kernel) { return kernel->end == end; });
        const auto at = static_cast<std::size_t>(same - kernels.begin());
        if (at == kernels.size()) {
            kernels.push_back(std::make_shared<NcclKernel>());
            kernels.back()->end = end;
            streams.push_back(one.stream);
        }
        if (streams[at] != one.stream) scheduler().find("NCCL: one group of calls on two streams");
        kernels[at]->operations.push_back(one.operation);
    }
    pending.clear();
    for (std::size_t i = 0; i < kernels.size(); ++i) {
        const auto kernel = kernels[i];
        kernel->number = kernel->end->kernels++;
        kernel->launch = launches[kernel->end->device]++;
        kernel->stream = reinterpret_cast<EmulatedStream*>(streams[i])->number;
        for (NcclOperation& one : kernel->operations)
            if (one.kind != NcclKind::send && one.kind != NcclKind::recv)
                one.number = kernel->end->collectives++;
        register_kernel(*kernel);
        if (scheduler().enqueue(streams[i], {.work = [kernel] { complete(*kernel); },
                                             .ready = [kernel] { return advance(*kernel); },
                                             .what = "NCCL's " + text_of(kernel->operations.front())}) !=
            cudaSuccess)
            return ncclUnhandledCudaError;
    }
    return ncclSuccess;
}

ncclResult_t enqueue(ncclComm_t communicator, cudaStream_t stream, const NcclOperation& operation,
                     std::size_t from_blocks = 1, std::size_t to_blocks = 1) {
    const Lock lock(scheduler().mutex);
    const std::size_t bytes = operation.count * cuda_host::size_of(operation.type);
    const DeviceMemory& memory = DeviceMemory::instance();
    const auto inside = [&](const void* data, std::size_t blocks) {
        return !data || bytes == 0 || memory.contains(data, blocks * bytes);
    };
    if (!inside(operation.from, from_blocks) || !inside(operation.to, to_blocks)) {
        scheduler().find("NCCL: " + text_of(operation) + " leaves its block of device memory");
        return ncclInvalidArgument;
    }
    NcclOperation kept = operation;
    const bool is_read = operation.kind != NcclKind::broadcast || operation.peer == communicator->end->rank;
    kept.from_bytes = operation.from && is_read ? from_blocks * bytes : 0;
    kept.to_bytes = operation.to ? to_blocks * bytes : 0;
    pending.push_back({communicator, stream, kept});
    return group_depth > 0 ? ncclSuccess : launch_pending();
}

}  // namespace

std::int64_t cuda_host::nccl_ranks() {
    std::size_t most = 0;
    for (const auto& [id, group] : worlds)
        if (complete_group(*group)) most = std::max(most, group->ends.size());
    return static_cast<std::int64_t>(most);
}

extern "C" {

const char* ncclGetErrorString(ncclResult_t result) {
    return result == ncclSuccess        ? "no error"
           : result == ncclInProgress   ? "in progress"
           : result == ncclInvalidUsage ? "invalid usage"
                                        : "an error of the emulated NCCL";
}
const char* ncclGetLastError(ncclComm_t) {
    return last_error.c_str();
}
ncclResult_t ncclGetVersion(int* version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    const Lock lock(scheduler().mutex);
    static int made = 0;
    const char* const processes = std::getenv("OMPI_COMM_WORLD_SIZE");
    if (processes && std::atoi(processes) > 1)
        return refuse(ncclSystemError, "the emulated NCCL joins threads of one process");
    std::memset(id, 0, sizeof *id);
    std::snprintf(id->internal, sizeof id->internal, "%d of process %d", ++made, static_cast<int>(getpid()));
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
    const Lock lock(scheduler().mutex);
    if (!config || config->blocking != 0)
        return refuse(ncclInvalidArgument, "a call that blocks has no time-out: config.blocking = 0");
    std::shared_ptr<NcclGroup>& group = worlds[id.internal];
    if (!group) {
        group = std::make_shared<NcclGroup>();
        group->ends.resize(static_cast<std::size_t>(ranks));
        group->name = config->commName ? config->commName : "world";
    }
    const auto end = std::make_shared<NcclEnd>();
    end->group = group;
    end->rank = rank;
    cudaGetDevice(&end->device);
    group->ends.at(static_cast<std::size_t>(rank)) = end;
    if (complete_group(*group)) refuse_shared_devices(*group);
    *communicator = new ncclComm{end};
    return ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t parent, int color, int key, ncclComm_t* child, ncclConfig_t* config) {
    const Lock lock(scheduler().mutex);
    NcclEnd& end = *parent->end;
    if (!config || config->blocking != 0)
        return refuse(ncclInvalidArgument, "a call that blocks has no time-out: config.blocking = 0");
    NcclGroup& group = *end.group;
    const std::size_t number = end.splits++;
    if (number == group.splits.size()) group.splits.push_back({.entries = {}, .name = {}});
    NcclGroup::Split& split = group.splits[number];
    split.entries.resize(group.ends.size());
    split.name = config->commName ? config->commName : "split";
    const auto born = std::make_shared<NcclEnd>();
    born->device = end.device;
    split.entries[static_cast<std::size_t>(end.rank)] = {color, key, born};
    *child = color == NCCL_SPLIT_NOCOLOR ? nullptr : new ncclComm{born};
    if (std::ranges::all_of(split.entries, [](const auto& one) { return one.has_value(); }))
        form_groups(split);
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
    const Lock lock(scheduler().mutex);
    const NcclEnd& end = *communicator->end;
    const auto joined = [&] {
        if (!end.group || !complete_group(*end.group)) return false;
        if (end.splits == 0) return true;
        return std::ranges::all_of(end.group->splits[end.splits - 1].entries,
                                   [](const auto& one) { return one.has_value(); });
    };
    *state = end.failure != ncclSuccess     ? end.failure
             : !scheduler().finding.empty() ? refuse(ncclUnhandledCudaError, scheduler().finding)
             : joined()                     ? ncclSuccess
                                            : ncclInProgress;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
    const Lock lock(scheduler().mutex);
    communicator->end->aborted = true;
    scheduler().note_progress();
    return ncclCommDestroy(communicator);
}
ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
    const Lock lock(scheduler().mutex);
    const auto& group = communicator->end->group;
    if (group && ++group->left == group->ends.size())
        std::erase_if(worlds, [&](const auto& one) { return one.second == group; });
    delete communicator;
    return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t communicator, int* rank) {
    const Lock lock(scheduler().mutex);
    *rank = communicator->end->rank;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
    ++group_depth;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    const Lock lock(scheduler().mutex);
    return --group_depth > 0 || pending.empty() ? ncclSuccess : launch_pending();
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return enqueue(comm, stream,
                   {.kind = NcclKind::send, .from = from, .count = count, .type = type, .peer = peer});
}
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return enqueue(comm, stream,
                   {.kind = NcclKind::recv, .to = to, .count = count, .type = type, .peer = peer});
}
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
    return enqueue(comm, stream,
                   {.kind = NcclKind::all_gather, .from = from, .to = to, .count = count, .type = type}, 1,
                   comm->end->group->ends.size());
}
ncclResult_t ncclAlltoAll(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                          cudaStream_t stream) {
    const std::size_t ranks = comm->end->group->ends.size();
    if (const Lock lock(scheduler().mutex); comm->end->rank == scheduler().settings.failing_nccl_rank)
        return refuse(ncclSystemError, "the network is out of order (planted)");
    return enqueue(comm, stream,
                   {.kind = NcclKind::all_to_all, .from = from, .to = to, .count = count, .type = type},
                   ranks, ranks);
}
ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return enqueue(
        comm, stream,
        {.kind = NcclKind::broadcast, .from = from, .to = to, .count = count, .type = type, .peer = root});
}
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    return enqueue(comm, stream,
                   {.kind = NcclKind::all_reduce,
                    .from = from,
                    .to = to,
                    .count = count,
                    .type = type,
                    .reduction = op});
}

}  // extern "C"
