#include "comm/nccl_module.h"

#include <algorithm>
#include <cstdlib>

#include "comm/rank_agreement.h"
#include "runtime/cuda_module.h"
#include "runtime/module_library.h"

namespace moesaic {

namespace {

ModuleLibrary open_nccl() {
    if (std::getenv(kCudaModuleVariable) && !std::getenv(kNcclModuleVariable)) {
        ModuleLibrary back_end = open_module(kCudaModuleVariable, kCudaModuleFile, "CUDA back end");
        if (function_of(back_end, kNcclConnect)) return back_end;  // the emulator's
    }
    return open_module(kNcclModuleVariable, kNcclModuleFile, "NCCL communicator");
}

/// The problem that all ranks agree on: this rank's own where it has one.
std::string problem_of(int rank, const std::string& own) {
    return own.empty() ? fmt::format("rank {} cannot use it", rank) : own;
}

}  // namespace

NcclResult make_nccl_communicator(Communicator& host) {
    const ModuleLibrary library = open_nccl();
    const auto make_id = reinterpret_cast<NcclMakeId>(function_of(library, kNcclMakeId));
    const auto connect = reinterpret_cast<NcclConnect>(function_of(library, kNcclConnect));
    std::string problem = library.problem;
    if (library.handle && !(make_id && connect))
        problem = fmt::format("{} is no NCCL communicator of this program", library.path);
    NcclId id{};
    bool ready = make_id && connect;
    if (ready && host.rank() == 0) ready = make_id(&id, &problem);
    if (const int without = first_rank_without(host, ready, {"NCCL at start-up"}); without >= 0)
        return {nullptr, problem_of(without, problem)};
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("start-up");
    std::array<i64, sizeof(NcclId) / sizeof(i64)> words{};
    std::copy_n(id.data(), id.size(), reinterpret_cast<char*>(words.data()));
    host.broadcast(*stream, view_of(words.data(), {std::ssize(words)}), 0, {"NCCL's id"});
    std::copy_n(reinterpret_cast<const char*>(words.data()), id.size(), id.data());
    NcclResult result;
    result.communicator.reset(connect(&host, &id, &result.problem));
    return result;
}

}  // namespace moesaic
