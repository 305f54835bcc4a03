// Memory of a rank before it is spent: a dry run of training that allocates everything and computes nothing.
#pragma once

#include "comm/accounting_communicator.h"
#include "launch/run_setup.h"
#include "runtime/memory_pool.h"

namespace moesaic {

/// Bytes of one rank.
struct MemoryEstimate {
    /// What the pool has handed out for what when most is in use, in blocks as large as they are.
    MemoryByUse by_use{};
    i64 kept = 0;  ///< what the pool holds beyond that, for reuse
    /// Of reductions between ranks, which every group of ranks holds for itself.
    i64 reductions = 0;
    i64 shared = 0;      ///< that other ranks of the machine reach too, for parallel.exchange: shared_memory
    i64 checkpoint = 0;  ///< host copies for checkpoints, kept from the first one on
    /// `memory_bytes` of metrics.jsonl.
    [[nodiscard]] i64 pool_bytes() const;
    /// What training adds to a process that has read its data.
    [[nodiscard]] i64 process_bytes() const { return pool_bytes() + checkpoint; }
};

/// The largest of all ranks' (of those that differ by more than a few blocks). Takes the path of the trainer,
/// evaluation, checkpoint and steps, through the same layers. Buffers for rows are as large as the receive
/// budget allows whatever the routing (DispatchChunk), but where a rank gets more rows than that, those of
/// later rounds come on top: `routing` says which is meant.
/// `ranks_per_node` in blocks where the configuration simulates none; 0: all ranks on one node.
[[nodiscard]] MemoryEstimate estimate_memory(const RunSetup& run, int world, int expert_parallel,
                                             int ranks_per_node = 0,
                                             AssumedRouting routing = AssumedRouting::even);

/// "gradients of a micro-batch" and the like, for tables.
[[nodiscard]] std::string_view name_of(MemoryUse use);

/// Memory that this process holds at the moment (Linux: resident pages).
[[nodiscard]] i64 resident_bytes();

}  // namespace moesaic
