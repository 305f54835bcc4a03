// PTX that runs: functions as they are after parsing, and one CUDA thread that interprets one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/cuda_host/device.h"
#include "tests/cuda_host/locations.h"

namespace cuda_host {

class AccessStatistics;
struct PtxThread;

enum class PtxSpace : std::uint8_t { global, shared, local, parameter, generic };

/// Operands are slots of the thread's registers; constants have slots too.
struct PtxInstruction {
    using Execute = void (*)(PtxThread&, const PtxInstruction&);
    Execute execute = nullptr;
    int guard = -1;  ///< the slot of the predicate
    bool guard_negated = false;
    std::uint16_t to[4] = {}, from[10] = {};
    std::int64_t number = 0;  ///< an address's offset, a branch's target, a call's function
    std::uint32_t identity = 0;
    Place place{"", 0};  ///< innermost line
    Location location = 0;
};

struct PtxVariable {
    std::size_t offset = 0, bytes = 0, alignment = 1;
};

struct PtxFunction {
    std::string name;
    std::vector<std::uint64_t> registers;  ///< as a thread begins: constants, and zeros
    std::vector<PtxInstruction> code;
    std::map<std::string, PtxVariable> parameters;      ///< by name
    std::map<std::string, PtxVariable> frame;           ///< of calls that it makes, and what it returns
    std::map<std::string, PtxVariable> shared;          ///< slots of their addresses below
    std::map<std::string, std::uint16_t> shared_slots;  ///< where the address of a shared array goes
    std::vector<std::string> formals;                   ///< parameters in their order
    std::string result;                                 ///< what it returns in `frame`
    std::size_t parameter_bytes = 0, frame_bytes = 0, local_bytes = 0;
    std::uint16_t local_slot = 0;
};

/// The slots that every function has first: threadIdx, blockIdx, blockDim, gridDim, the lane.
inline constexpr std::uint16_t kSpecialSlots = 14, kSinkSlot = 13;

struct PtxThread {
    const std::vector<PtxFunction>& functions;
    const PtxFunction& function;
    std::uint64_t* registers;
    const std::byte* parameters;
    std::byte* frame;
    char* shared;  ///< where shared addresses count from
    AccessStatistics* statistics;
    std::size_t next = 0;
    bool carry = false;

    template <class T>
    [[nodiscard]] T get(std::uint16_t slot) const {
        T value;
        std::memcpy(&value, registers + slot, sizeof value);
        return value;
    }
    template <class T>
    void set(std::uint16_t slot, T value) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof value);
        registers[slot] = bits;
    }
};

/// Runs a function from its beginning to its end.
void run_ptx(const std::vector<PtxFunction>& functions, const PtxFunction& function,
             const std::byte* parameters, std::byte* result, AccessStatistics* statistics);

/// An opcode's meaning; null where there is none.
PtxInstruction::Execute arithmetic_of(const std::string& opcode);
PtxInstruction::Execute comparison_of(const std::string& opcode);
PtxInstruction::Execute conversion_of(const std::string& opcode);
/// Of loads, stores and atomics.
PtxInstruction::Execute access_of(const std::string& opcode);
/// Of branches, calls, barriers, and what a warp does together.
PtxInstruction::Execute control_of(const std::string& opcode);

}  // namespace cuda_host
