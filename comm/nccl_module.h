// NCCL as a module: a library that is opened where ranks compute on GPUs, so that the program starts, and
// runs, without it.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "comm/communicator.h"

namespace moesaic {

/// What ranks find each other by: NCCL's ncclUniqueId.
using NcclId = std::array<char, 128>;

/// What a module exports as `moesaic_nccl_make_id`: for one rank, which tells the others. False, and why,
/// where NCCL cannot start.
using NcclMakeId = bool (*)(NcclId* id, std::string* problem);
/// What a module exports as `moesaic_nccl_connect`. Collective over `host`, which has to outlive the result.
/// Null on every rank, and why, where a rank could not join.
using NcclConnect = Communicator* (*)(Communicator* host, const NcclId* id, std::string* problem);
inline constexpr const char* kNcclMakeId = "moesaic_nccl_make_id";
inline constexpr const char* kNcclConnect = "moesaic_nccl_connect";

inline constexpr const char* kNcclModuleVariable = "MOESAIC_NCCL_MODULE";
inline constexpr const char* kNcclModuleFile = "libmoesaic_nccl.so";

struct NcclResult {
    std::unique_ptr<Communicator> communicator;
    std::string problem;  ///< why there is none, as part of a sentence
};

/// Collective over `host`, each of whose ranks has chosen a GPU of its own. The same ranks over NCCL; host
/// memory on host streams goes over `host` as before. Everything is made and tried before it returns. The
/// module is a file (module_library.h), or the back end's own where that is chosen and brings an NCCL.
[[nodiscard]] NcclResult make_nccl_communicator(Communicator& host);

}  // namespace moesaic
