// PTX that compares, and PTX that changes types.
#include <cmath>
#include <limits>
#include <unordered_map>

#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

namespace {

using Table = std::unordered_map<std::string, PtxInstruction::Execute>;

template <class T, class Operation>
PtxInstruction::Execute comparison(Operation) {
    return [](PtxThread& t, const PtxInstruction& i) {
        t.set<std::uint8_t>(i.to[0], Operation{}(t.get<T>(i.from[0]), t.get<T>(i.from[1])) ? 1 : 0);
    };
}

template <class T>
void add_ordered(Table& table, const std::string& type) {
    table["setp.eq." + type] = comparison<T>([](T a, T b) { return a == b; });
    table["setp.lt." + type] = comparison<T>([](T a, T b) { return a < b; });
    table["setp.le." + type] = comparison<T>([](T a, T b) { return a <= b; });
    table["setp.gt." + type] = comparison<T>([](T a, T b) { return a > b; });
    table["setp.ge." + type] = comparison<T>([](T a, T b) { return a >= b; });
}

/// With a NaN, ordered comparisons are false and those that end in u are true.
template <class T>
void add_floating(Table& table, const std::string& type) {
    add_ordered<T>(table, type);
    table["setp.ne." + type] = comparison<T>([](T a, T b) { return a < b || b < a; });
    table["setp.equ." + type] = comparison<T>([](T a, T b) { return !(a < b || b < a); });
    table["setp.neu." + type] = comparison<T>([](T a, T b) { return a != b; });
    table["setp.ltu." + type] = comparison<T>([](T a, T b) { return !(a >= b); });
    table["setp.leu." + type] = comparison<T>([](T a, T b) { return !(a > b); });
    table["setp.gtu." + type] = comparison<T>([](T a, T b) { return !(a <= b); });
    table["setp.geu." + type] = comparison<T>([](T a, T b) { return !(a < b); });
    table["setp.num." + type] = comparison<T>([](T a, T b) { return a == a && b == b; });
    table["setp.nan." + type] = comparison<T>([](T a, T b) { return a != a || b != b; });
}

template <class T>
void add_integer(Table& table, const std::string& type) {
    add_ordered<T>(table, type);
    table["setp.ne." + type] = comparison<T>([](T a, T b) { return a != b; });
}

Table comparison_table() {
    Table table;
    add_integer<std::int16_t>(table, "s16");
    add_integer<std::int32_t>(table, "s32");
    add_integer<std::int64_t>(table, "s64");
    for (const char* type : {"u16", "b16"}) add_integer<std::uint16_t>(table, type);
    for (const char* type : {"u32", "b32"}) add_integer<std::uint32_t>(table, type);
    for (const char* type : {"u64", "b64"}) add_integer<std::uint64_t>(table, type);
    add_floating<float>(table, "f32");
    add_floating<double>(table, "f64");
    return table;
}

template <class To, class From, class Operation>
PtxInstruction::Execute conversion(Operation) {
    return [](PtxThread& t, const PtxInstruction& i) {
        t.set<To>(i.to[0], Operation{}(t.get<From>(i.from[0])));
    };
}
/// As C++ converts.
template <class To, class From>
PtxInstruction::Execute plain() {
    return conversion<To, From>([](From value) { return static_cast<To>(value); });
}
/// To an integer; numbers beyond it become its limits, NaN becomes 0.
template <class To, class From, class Round>
PtxInstruction::Execute rounded(Round) {
    return conversion<To, From>([](From value) {
        if (value != value) return To{0};
        const From whole = Round{}(value);
        if (whole <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
        if (whole >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
        return static_cast<To>(whole);
    });
}

template <class From>
void add_from_integer(Table& table, const std::string& from) {
    table["cvt.u16." + from] = table["cvt.s16." + from] = plain<std::uint16_t, From>();
    table["cvt.u32." + from] = table["cvt.s32." + from] = plain<std::uint32_t, From>();
    table["cvt.u64." + from] = table["cvt.s64." + from] = plain<std::uint64_t, From>();
    table["cvt.rn.f32." + from] = plain<float, From>();
    table["cvt.rn.f64." + from] = plain<double, From>();
}

template <class From>
void add_from_floating(Table& table, const std::string& from) {
    const auto truncate = [](From value) { return std::trunc(value); };
    const auto nearest = [](From value) { return std::nearbyint(value); };
    table["cvt.rzi.s32." + from] = rounded<std::int32_t, From>(truncate);
    table["cvt.rzi.s64." + from] = rounded<std::int64_t, From>(truncate);
    table["cvt.rzi.u32." + from] = rounded<std::uint32_t, From>(truncate);
    table["cvt.rzi.u64." + from] = rounded<std::uint64_t, From>(truncate);
    table["cvt.rni.s32." + from] = rounded<std::int32_t, From>(nearest);
    table["cvt.rni.s64." + from] = rounded<std::int64_t, From>(nearest);
    table["cvt.rzi." + from + "." + from] = conversion<From, From>(truncate);
    table["cvt.rni." + from + "." + from] = conversion<From, From>(nearest);
    table["cvt.sat." + from + "." + from] = conversion<From, From>(
        [](From value) { return value > 0 ? (value < 1 ? value : From{1}) : From{0}; });
}

Table conversion_table() {
    Table table;
    add_from_integer<std::uint16_t>(table, "u16");
    add_from_integer<std::int16_t>(table, "s16");
    add_from_integer<std::uint32_t>(table, "u32");
    add_from_integer<std::int32_t>(table, "s32");
    add_from_integer<std::uint64_t>(table, "u64");
    add_from_integer<std::int64_t>(table, "s64");
    add_from_floating<float>(table, "f32");
    add_from_floating<double>(table, "f64");
    table["cvt.f64.f32"] = plain<double, float>();
    table["cvt.rn.f32.f64"] = plain<float, double>();
    return table;
}

PtxInstruction::Execute find(const Table& table, const std::string& opcode) {
    const auto found = table.find(opcode);
    return found == table.end() ? nullptr : found->second;
}

}  // namespace

PtxInstruction::Execute comparison_of(const std::string& opcode) {
    static const Table table = comparison_table();
    return find(table, opcode);
}

PtxInstruction::Execute conversion_of(const std::string& opcode) {
    static const Table table = conversion_table();
    return find(table, opcode);
}

}  // namespace cuda_host
