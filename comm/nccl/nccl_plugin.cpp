// The entry points of the module: comm/nccl_module.h.
#include <algorithm>
#include <cstdlib>
#include <map>

#include "comm/nccl/nccl_communicator.h"
#include "comm/rank_agreement.h"

namespace moesaic {

namespace {

/// Of ranks that are threads of this process and found each other by `id`.
std::shared_ptr<NcclFailure> failure_of(const NcclId& id) {
    static std::mutex mutex;
    static std::map<NcclId, std::weak_ptr<NcclFailure>> all;
    const std::scoped_lock lock(mutex);
    std::weak_ptr<NcclFailure>& place = all[id];
    auto failure = place.lock();
    if (!failure) place = failure = std::make_shared<NcclFailure>();
    return failure;
}

ncclUniqueId unique_id(const NcclId& id) {
    static_assert(sizeof(ncclUniqueId) == sizeof(NcclId));
    ncclUniqueId unique;
    std::copy(id.begin(), id.end(), unique.internal);
    return unique;
}

/// Kernels of several communicators start in the order in which they were issued, the same on every rank.
void order_launches() {
    static std::once_flag once;
    std::call_once(once, [] { setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0); });
}

/// Null, and why, where this rank could not join; collective all the same.
ncclComm_t join(Communicator& host, const NcclId& id, NcclWatch& watch, std::string* problem) {
    ncclComm_t handle = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = host.name().c_str();
    try {
        watch.check(ncclCommInitRankConfig(&handle, host.size(), unique_id(id), host.rank(), &config),
                    "joining the world", handle);
        watch.settle(handle, "joining the world", start_up_seconds(host));
        return handle;
    } catch (const Error& error) {
        *problem = error.what();
    }
    if (handle) ncclCommAbort(handle);
    return nullptr;
}

}  // namespace

std::unique_ptr<Communicator> NcclCommunicator::connect(Communicator& host, const NcclId& id,
                                                        std::string* problem) {
    order_launches();
    const auto watch = std::make_shared<NcclWatch>(failure_of(id));
    const ncclComm_t handle = join(host, id, *watch, problem);
    if (const int without = first_rank_without(host, handle != nullptr, {"NCCL at start-up"}); without >= 0) {
        if (handle) ncclCommAbort(handle);
        if (handle || problem->empty()) *problem = fmt::format("rank {} could not join NCCL", without);
        return nullptr;
    }
    std::unique_ptr<Communicator> made;
    try {
        made.reset(new NcclCommunicator(host, nullptr, handle, watch));
    } catch (const Error& error) {
        *problem = error.what();
        watch->fail(error.what());
    }
    if (const int without = first_rank_without(host, made != nullptr, {"NCCL at start-up"}); without >= 0) {
        if (problem->empty()) *problem = fmt::format("rank {} could not use NCCL", without);
        return nullptr;
    }
    return made;
}

}  // namespace moesaic

extern "C" bool moesaic_nccl_make_id(moesaic::NcclId* id, std::string* problem) {
    ncclUniqueId unique{};
    const ncclResult_t result = ncclGetUniqueId(&unique);
    if (result != ncclSuccess) {
        *problem =
            fmt::format("NCCL cannot start: {} ({})", ncclGetErrorString(result), ncclGetLastError(nullptr));
        return false;
    }
    std::copy(std::begin(unique.internal), std::end(unique.internal), id->begin());
    return true;
}

extern "C" moesaic::Communicator* moesaic_nccl_connect(moesaic::Communicator* host, const moesaic::NcclId* id,
                                                       std::string* problem) {
    return moesaic::NcclCommunicator::connect(*host, *id, problem).release();
}
