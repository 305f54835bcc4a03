// Communicators, kernels and their operations as the emulated NCCL keeps them.
#pragma once

#include <nccl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/cuda_host/streams.h"

namespace cuda_host {

enum class NcclKind : std::uint8_t { send, recv, all_gather, all_to_all, broadcast, all_reduce };

struct NcclOperation {
    NcclKind kind;
    const void* from = nullptr;
    void* to = nullptr;
    std::size_t count = 0;
    ncclDataType_t type = ncclInt8;
    int peer = -1;  ///< or the root of a broadcast
    ncclRedOp_t reduction = ncclSum;
    std::uint64_t number = 0;  ///< of a collective: how many this rank has called before on the communicator
    bool done = false;
    std::size_t from_bytes = 0, to_bytes = 0;  ///< that it reads and writes
};

struct NcclGroup;

/// A rank's end of a communicator.
struct NcclEnd {
    std::shared_ptr<NcclGroup> group;
    int rank = 0, device = 0;
    std::uint64_t kernels = 0, completed = 0, collectives = 0, splits = 0;
    struct NcclKernel* running = nullptr;  ///< on the device, waiting for others
    bool aborted = false;
    ncclResult_t failure = ncclSuccess;
};

struct NcclGroup {
    std::string name;
    std::vector<std::shared_ptr<NcclEnd>> ends;  ///< null until it has joined
    std::size_t left = 0;                        ///< ends that are destroyed
    struct Split {
        struct Entry {
            int color = 0, key = 0;
            std::shared_ptr<NcclEnd> end;  ///< of the new group
        };
        std::vector<std::optional<Entry>> entries;  ///< by rank
        std::string name;
    };
    std::vector<Split> splits;
};

/// What one call, or all calls of a group, have put on a stream.
struct NcclKernel {
    std::shared_ptr<NcclEnd> end;
    int stream = 0;
    std::uint64_t number = 0;  ///< on this communicator and rank
    std::uint64_t launch = 0;  ///< on this device
    std::vector<NcclOperation> operations;

    NcclKernel() = default;
    ~NcclKernel();
    NcclKernel(const NcclKernel&) = delete;
    NcclKernel& operator=(const NcclKernel&) = delete;
};

/// From its call to its end, which gives the device back: whoever waits is named.
void register_kernel(NcclKernel& kernel);
/// Tries to begin the kernel and to do what its peers are ready for; true once all of it is done. Mismatches
/// are findings.
[[nodiscard]] bool advance(NcclKernel& kernel);
/// After its end: what it read and wrote, for the memory checker, and the next of its communicator may begin.
void complete(NcclKernel& kernel);
/// "recv of 16 float32 from rank 2".
[[nodiscard]] std::string text_of(const NcclOperation& operation);
[[nodiscard]] std::size_t size_of(ncclDataType_t type);

}  // namespace cuda_host

struct ncclComm {
    std::shared_ptr<cuda_host::NcclEnd> end;
};
