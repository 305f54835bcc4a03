// PTX that reads and writes memory: every access goes by the checker and the statistics first.
#include <fmt/format.h>

#include <unordered_map>

#include "tests/cuda_host/access_statistics.h"
#include "tests/cuda_host/block.h"
#include "tests/cuda_host/checker.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/ptx_program.h"
#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

namespace {

using Table = std::unordered_map<std::string, PtxInstruction::Execute>;

/// Where the bytes are on the host.
template <PtxSpace space>
char* address_of(PtxThread& t, const PtxInstruction& i, std::uint64_t base) {
    const std::uint64_t address = base + static_cast<std::uint64_t>(i.number);
    if constexpr (space == PtxSpace::shared) return t.shared + static_cast<std::uint32_t>(address);
    return reinterpret_cast<char*>(address);
}

template <PtxSpace space>
void note(PtxThread& t, const PtxInstruction& i, const char* data, std::size_t bytes, Access access) {
    if constexpr (space == PtxSpace::local) return;
    const bool on_device = DeviceMemory::instance().owns(data);
    if (space == PtxSpace::global && !on_device) {
        if (access == Access::read && is_ptx_constant(data, bytes)) return;
        BlockExecutor::instance().fail(
            fmt::format("memory of the host is accessed at {}", text_of(i.location)));
    }
    Checker* const checker = Checker::active();
    if (checker && checker->watches(data)) checker->access(data, bytes, access, true, i.location);
    if (t.statistics && access != Access::atomic)
        t.statistics->add(i, on_device ? PtxSpace::global : PtxSpace::shared, data, bytes);
}

/// Integers that are narrower than a register widen with their sign.
template <class T>
void set_loaded(PtxThread& t, std::uint16_t slot, T value) {
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
        t.set<std::int64_t>(slot, value);
    } else {
        t.set<T>(slot, value);
    }
}

template <class T, PtxSpace space, int elements>
void load(PtxThread& t, const PtxInstruction& i) {
    const char* const data = address_of<space>(t, i, t.get<std::uint64_t>(i.from[0]));
    note<space>(t, i, data, sizeof(T) * elements, Access::read);
    for (int k = 0; k < elements; ++k) {
        T value;
        std::memcpy(&value, data + static_cast<std::size_t>(k) * sizeof(T), sizeof(T));
        set_loaded(t, i.to[k], value);
    }
}

template <class T, PtxSpace space, int elements>
void store(PtxThread& t, const PtxInstruction& i) {
    char* const data = address_of<space>(t, i, t.get<std::uint64_t>(i.from[0]));
    note<space>(t, i, data, sizeof(T) * elements, Access::write);
    for (int k = 0; k < elements; ++k) {
        const T value = t.get<T>(i.from[k + 1]);
        std::memcpy(data + static_cast<std::size_t>(k) * sizeof(T), &value, sizeof(T));
    }
}

/// Parameters of the kernel lie in `parameters`, where addresses count from its begin; those of calls, which
/// have no base, in the frame.
template <class T, int elements>
void load_parameter(PtxThread& t, const PtxInstruction& i) {
    const bool of_call = i.from[0] == kSinkSlot;
    const auto* const data =
        of_call ? t.frame + i.number : t.parameters + t.get<std::uint64_t>(i.from[0]) + i.number;
    for (int k = 0; k < elements; ++k) {
        T value;
        std::memcpy(&value, data + static_cast<std::size_t>(k) * sizeof(T), sizeof(T));
        set_loaded(t, i.to[k], value);
    }
}
template <class T>
void store_parameter(PtxThread& t, const PtxInstruction& i) {
    const T value = t.get<T>(i.from[1]);
    std::memcpy(t.frame + i.number, &value, sizeof(T));
}

template <class T, PtxSpace space>
void atomic_add(PtxThread& t, const PtxInstruction& i) {
    char* const data = address_of<space>(t, i, t.get<std::uint64_t>(i.from[0]));
    note<space>(t, i, data, sizeof(T), Access::atomic);
    T before;
    std::memcpy(&before, data, sizeof(T));
    const T after = static_cast<T>(before + t.get<T>(i.from[1]));
    std::memcpy(data, &after, sizeof(T));
    t.set<T>(i.to[0], before);
}

template <class T, PtxSpace space>
void add_space(Table& table, const std::string& name, const std::string& type) {
    table["ld." + name + type] = load<T, space, 1>;
    table["ld." + name + "v2." + type] = load<T, space, 2>;
    table["ld." + name + "v4." + type] = load<T, space, 4>;
    table["st." + name + type] = store<T, space, 1>;
    table["st." + name + "v2." + type] = store<T, space, 2>;
    table["st." + name + "v4." + type] = store<T, space, 4>;
}

template <class T>
void add_type(Table& table, const std::string& type) {
    add_space<T, PtxSpace::global>(table, "global.", type);
    add_space<T, PtxSpace::global>(table, "global.nc.", type);
    add_space<T, PtxSpace::shared>(table, "shared.", type);
    add_space<T, PtxSpace::local>(table, "local.", type);
    table["ld.param." + type] = load_parameter<T, 1>;
    table["ld.param.v2." + type] = load_parameter<T, 2>;
    table["ld.param.v4." + type] = load_parameter<T, 4>;
    table["st.param." + type] = store_parameter<T>;
}

/// 16 bytes of device memory to shared memory, which may happen at any time from now on.
void copy_16_bytes(PtxThread& t, const PtxInstruction& i) {
    char* const to = address_of<PtxSpace::shared>(t, i, t.get<std::uint64_t>(i.from[0]));
    const auto* const from = reinterpret_cast<const char*>(t.get<std::uint64_t>(i.from[1]));
    note<PtxSpace::global>(t, i, from, 16, Access::read);
    note<PtxSpace::shared>(t, i, to, 16, Access::write);
    pending_copies().push_back({to, from});
}
void wait_for_copies(PtxThread&, const PtxInstruction&) {
    for (const PendingCopy& copy : pending_copies()) std::memcpy(copy.to, copy.from, 16);
    pending_copies().clear();
}
template <bool transposed>
void load_matrices(PtxThread& t, const PtxInstruction& i) {
    const char* const data = address_of<PtxSpace::shared>(t, i, t.get<std::uint64_t>(i.from[0]));
    note<PtxSpace::shared>(t, i, data, 16, Access::read);
    std::uint32_t row[4], pairs[4];
    std::memcpy(row, data, sizeof row);
    share_matrices(pairs, row, transposed, i.place);
    for (int k = 0; k < 4; ++k) t.set(i.to[k], pairs[k]);
}

template <class T>
void add_atomics(Table& table, const std::string& type) {
    for (const char* name : {"atom", "red"}) {
        table[std::string(name) + ".global.add." + type] = atomic_add<T, PtxSpace::global>;
        table[std::string(name) + ".shared.add." + type] = atomic_add<T, PtxSpace::shared>;
    }
}

Table access_table() {
    Table table;
    for (const char* type : {"u8", "b8"}) add_type<std::uint8_t>(table, type);
    for (const char* type : {"u16", "b16"}) add_type<std::uint16_t>(table, type);
    for (const char* type : {"u32", "b32", "f32"}) add_type<std::uint32_t>(table, type);
    for (const char* type : {"u64", "b64", "f64"}) add_type<std::uint64_t>(table, type);
    add_type<std::int8_t>(table, "s8");
    add_type<std::int16_t>(table, "s16");
    add_type<std::int32_t>(table, "s32");
    add_type<std::int64_t>(table, "s64");
    add_atomics<std::uint32_t>(table, "u32");
    add_atomics<std::uint32_t>(table, "s32");
    add_atomics<std::uint64_t>(table, "u64");
    add_atomics<float>(table, "f32");
    add_atomics<double>(table, "f64");
    table["cp.async.cg.shared.global"] = copy_16_bytes;
    table["cp.async.wait_all"] = wait_for_copies;
    table["ldmatrix.sync.aligned.m8n8.x4.shared.b16"] = load_matrices<false>;
    table["ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16"] = load_matrices<true>;
    return table;
}

}  // namespace

PtxInstruction::Execute access_of(const std::string& opcode) {
    static const Table table = access_table();
    const auto found = table.find(opcode);
    return found == table.end() ? nullptr : found->second;
}

}  // namespace cuda_host
