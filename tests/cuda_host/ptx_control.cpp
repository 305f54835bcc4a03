// PTX that branches, calls and meets other threads, and the loop that runs a thread.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

namespace {

using Table = std::unordered_map<std::string, PtxInstruction::Execute>;

void branch(PtxThread& t, const PtxInstruction& i) {
    t.next = static_cast<std::size_t>(i.number);
}
void end(PtxThread& t, const PtxInstruction&) {
    t.next = t.function.code.size();
}

void barrier(PtxThread&, const PtxInstruction& i) {
    block_barrier(i.place);
}
void sync_warp(PtxThread& t, const PtxInstruction& i) {
    meet_warp(WarpOperation::sync, t.get<std::uint32_t>(i.from[0]), 0, 0, i.place);
}
void vote_any(PtxThread& t, const PtxInstruction& i) {
    const std::uint64_t predicate = t.get<std::uint8_t>(i.from[0]) & 1;
    const bool any =
        meet_warp(WarpOperation::ballot, t.get<std::uint32_t>(i.from[1]), predicate, 0, i.place) != 0;
    t.set<std::uint8_t>(i.to[0], any ? 1 : 0);
}
void ballot(PtxThread& t, const PtxInstruction& i) {
    const std::uint64_t predicate = t.get<std::uint8_t>(i.from[0]) & 1;
    const std::uint64_t lanes =
        meet_warp(WarpOperation::ballot, t.get<std::uint32_t>(i.from[1]), predicate, 0, i.place);
    t.set<std::uint32_t>(i.to[0], static_cast<std::uint32_t>(lanes));
}

/// Of the whole warp, no segments of it.
template <class Source>
PtxInstruction::Execute shuffle_from(Source) {
    return [](PtxThread& t, const PtxInstruction& i) {
        if (t.get<std::uint32_t>(i.from[2]) != 31)
            BlockExecutor::instance().fail("a shuffle of a segment of a warp is unknown to the interpreter");
        const int lane = thread_number() & 31, wanted = Source{}(lane, t.get<std::int32_t>(i.from[1]));
        const bool inside = wanted >= 0 && wanted < 32;
        const std::uint64_t value =
            meet_warp(WarpOperation::shuffle, t.get<std::uint32_t>(i.from[3]),
                      t.get<std::uint32_t>(i.from[0]), inside ? wanted : lane, i.place);
        t.set<std::uint32_t>(i.to[0], static_cast<std::uint32_t>(value));
        t.set<std::uint8_t>(i.to[1], inside ? 1 : 0);
    };
}

/// Of the whole warp: the largest, or with all bits of `flip` the smallest.
template <std::uint32_t flip>
void reduce(PtxThread& t, const PtxInstruction& i) {
    std::uint32_t value = t.get<std::uint32_t>(i.from[0]) ^ flip;
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const std::uint64_t other = meet_warp(WarpOperation::shuffle, t.get<std::uint32_t>(i.from[1]), value,
                                              (thread_number() & 31) ^ lanes, i.place);
        value = std::max(value, static_cast<std::uint32_t>(other));
    }
    t.set<std::uint32_t>(i.to[0], value ^ flip);
}

void call(PtxThread& t, const PtxInstruction& i) {
    const PtxFunction& callee = t.functions[static_cast<std::size_t>(i.number)];
    // from: where the actual parameters are in the frame; to: where the result goes.
    std::vector<std::byte> parameters(callee.parameter_bytes);
    for (std::size_t k = 0; k < callee.formals.size(); ++k) {
        const PtxVariable& formal = callee.parameters.at(callee.formals[k]);
        std::memcpy(parameters.data() + formal.offset, t.frame + i.from[k], formal.bytes);
    }
    run_ptx(t.functions, callee, parameters.data(), t.frame + i.to[0], t.statistics);
}

/// to and from[6] on: the sums; from: a, then b.
void multiply(PtxThread& t, const PtxInstruction& i) {
    float sums[4];
    std::uint32_t a[4];
    for (int k = 0; k < 4; ++k) {
        a[k] = t.get<std::uint32_t>(i.from[k]);
        sums[k] = t.get<float>(i.from[6 + k]);
    }
    multiply_matrices(sums, a, t.get<std::uint32_t>(i.from[4]), t.get<std::uint32_t>(i.from[5]), i.place);
    for (int k = 0; k < 4; ++k) t.set(i.to[k], sums[k]);
}

/// An address in shared memory counts from the block's; as one of any space it is the host's.
void address_of_shared(PtxThread& t, const PtxInstruction& i) {
    t.set(i.to[0], reinterpret_cast<std::uint64_t>(t.shared + t.get<std::uint32_t>(i.from[0])));
}

Table control_table() {
    Table table;
    table["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = multiply;
    table["bra"] = table["bra.uni"] = branch;
    table["ret"] = table["exit"] = end;
    table["call.uni"] = table["call"] = call;
    table["bar.sync"] = table["barrier.sync"] = barrier;
    table["bar.warp.sync"] = sync_warp;
    table["vote.sync.any.pred"] = vote_any;
    table["vote.sync.ballot.b32"] = ballot;
    table["shfl.sync.bfly.b32"] = shuffle_from([](int lane, int by) { return lane ^ by; });
    table["shfl.sync.down.b32"] = shuffle_from([](int lane, int by) { return lane + by; });
    table["shfl.sync.idx.b32"] = shuffle_from([](int, int source) { return source & 31; });
    table["redux.sync.max.u32"] = reduce<0>;
    table["redux.sync.min.u32"] = reduce<0xffffffffu>;
    // Addresses of device memory are the host's in every space but the shared one.
    const PtxInstruction::Execute move = arithmetic_of("mov.u64");
    for (const char* space : {"global", "local", "const", "param"}) {
        table["cvta.to." + std::string(space) + ".u64"] = move;
        table["cvta." + std::string(space) + ".u64"] = move;
    }
    table["cvta.shared.u64"] = address_of_shared;
    return table;
}

}  // namespace

PtxInstruction::Execute control_of(const std::string& opcode) {
    static const Table table = control_table();
    const auto found = table.find(opcode);
    return found == table.end() ? nullptr : found->second;
}

void run_ptx(const std::vector<PtxFunction>& functions, const PtxFunction& function,
             const std::byte* parameters, std::byte* result, AccessStatistics* statistics) {
    // On the fiber's stack, which is given up where a fault ends the launch: nothing here wants to be
    // destroyed.
    const std::size_t slots = function.registers.size();
    auto* const registers = static_cast<std::uint64_t*>(__builtin_alloca(slots * sizeof(std::uint64_t)));
    std::memcpy(registers, function.registers.data(), slots * sizeof(std::uint64_t));
    auto* const frame = static_cast<std::byte*>(__builtin_alloca(function.frame_bytes + 16));
    auto* const local = static_cast<std::byte*>(__builtin_alloca_with_align(function.local_bytes + 16, 128));
    char* const shared = const_cast<char*>(BlockExecutor::instance().shared_memory());
    PtxThread t{functions, function, registers, parameters, frame, shared, statistics};
    const std::uint32_t special[] = {threadIdx.x,
                                     threadIdx.y,
                                     threadIdx.z,
                                     blockIdx.x,
                                     blockIdx.y,
                                     blockIdx.z,
                                     blockDim.x,
                                     blockDim.y,
                                     blockDim.z,
                                     gridDim.x,
                                     gridDim.y,
                                     gridDim.z,
                                     static_cast<std::uint32_t>(thread_number()) % 32};
    for (std::size_t k = 0; k < std::size(special); ++k) registers[k] = special[k];
    if (function.local_bytes > 0) registers[function.local_slot] = reinterpret_cast<std::uint64_t>(local);
    for (const auto& [name, variable] : function.shared) {
        const auto* const array =
            static_cast<const char*>(shared_array(&variable, variable.bytes, name.c_str()));
        registers[function.shared_slots.at(name)] = static_cast<std::uint64_t>(array - shared);
    }
    while (t.next < function.code.size()) {
        const PtxInstruction& i = function.code[t.next++];
        if (i.guard >= 0 && ((registers[i.guard] & 1) != 0) == i.guard_negated) continue;
        i.execute(t, i);
    }
    if (result && !function.result.empty()) {
        const PtxVariable& returned = function.frame.at(function.result);
        std::memcpy(result, frame + returned.offset, returned.bytes);
    }
}

}  // namespace cuda_host
