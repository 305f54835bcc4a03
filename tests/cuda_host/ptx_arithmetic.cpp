// What PTX computes in registers (PTX ISA 9.0, sections 9.7.1 to 9.7.8).
#include <bit>
#include <cfenv>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

namespace {

using Table = std::unordered_map<std::string, PtxInstruction::Execute>;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

/// An operation without state, from its type alone.
template <class To, class From, class Operation>
PtxInstruction::Execute unary(Operation) {
    return [](PtxThread& t, const PtxInstruction& i) {
        t.set<To>(i.to[0], Operation{}(t.get<From>(i.from[0])));
    };
}
template <class T, class Operation>
PtxInstruction::Execute binary(Operation) {
    return [](PtxThread& t, const PtxInstruction& i) {
        t.set(i.to[0], Operation{}(t.get<T>(i.from[0]), t.get<T>(i.from[1])));
    };
}
template <class T, class Operation>
PtxInstruction::Execute ternary(Operation) {
    return [](PtxThread& t, const PtxInstruction& i) {
        t.set<T>(i.to[0], Operation{}(t.get<T>(i.from[0]), t.get<T>(i.from[1]), t.get<T>(i.from[2])));
    };
}
template <class T, class Operation>
PtxInstruction::Execute shift(Operation) {
    return [](PtxThread& t, const PtxInstruction& i) {
        t.set<T>(i.to[0], Operation{}(t.get<T>(i.from[0]), t.get<u32>(i.from[1])));
    };
}
/// With the carry in and out where the opcode has them.
template <bool carry_in, bool carry_out, bool subtracts, class Product>
PtxInstruction::Execute with_carry(Product) {
    return [](PtxThread& t, const PtxInstruction& i) {
        constexpr bool multiplies = !std::is_same_v<Product, std::nullptr_t>;
        u64 first = t.get<u32>(i.from[0]);
        u64 second = t.get<u32>(i.from[1]);
        if constexpr (multiplies) {
            first = Product{}(first * second);
            second = t.get<u32>(i.from[2]);
        }
        const u64 extra = carry_in && t.carry ? 1 : 0;
        const u64 sum = subtracts ? first - second - extra : first + second + extra;
        if (carry_out) t.carry = (sum >> 32) != 0;
        t.set<u32>(i.to[0], static_cast<u32>(sum));
    };
}

/// Under another rounding. What `compute` reads is volatile, or the compiler would compute before the change.
template <class Compute>
auto rounded(int rounding, Compute compute) {
    const int before = std::fegetround();
    std::fesetround(rounding);
    const volatile double value = compute();
    std::fesetround(before);
    return value;
}

template <class T>
void add_integer(Table& table, const std::string& type) {
    using U = std::make_unsigned_t<T>;
    table["add." + type] = binary<U>([](U a, U b) { return static_cast<U>(a + b); });
    table["sub." + type] = binary<U>([](U a, U b) { return static_cast<U>(a - b); });
    table["mul.lo." + type] = binary<U>([](U a, U b) { return static_cast<U>(u64{a} * b); });
    table["mad.lo." + type] = ternary<U>([](U a, U b, U c) { return static_cast<U>(u64{a} * b + c); });
    table["neg." + type] = unary<U, U>([](U a) { return static_cast<U>(0 - a); });
    table["min." + type] = binary<T>([](T a, T b) { return b < a ? b : a; });
    table["max." + type] = binary<T>([](T a, T b) { return a < b ? b : a; });
    table["div." + type] = binary<T>([](T a, T b) {
        if (b == 0) return static_cast<T>(-1);  // undefined
        return std::is_signed_v<T> && b == static_cast<T>(-1) ? static_cast<T>(U{0} - static_cast<U>(a))
                                                              : static_cast<T>(a / b);
    });
    table["rem." + type] = binary<T>([](T a, T b) {
        return b == 0 || (std::is_signed_v<T> && b == static_cast<T>(-1)) ? T{0} : static_cast<T>(a % b);
    });
    table["shr." + type] = shift<T>([](T a, u32 by) {
        const u32 width = sizeof(T) * 8;
        if (by < width) return static_cast<T>(a >> by);
        return a < T{0} ? static_cast<T>(-1) : T{0};
    });
    table["abs." + type] =
        unary<T, T>([](T a) { return a < T{0} ? static_cast<T>(U{0} - static_cast<U>(a)) : a; });
}

template <class U>
void add_bits(Table& table, const std::string& type) {
    table["and." + type] = binary<U>([](U a, U b) { return static_cast<U>(a & b); });
    table["or." + type] = binary<U>([](U a, U b) { return static_cast<U>(a | b); });
    table["xor." + type] = binary<U>([](U a, U b) { return static_cast<U>(a ^ b); });
    table["not." + type] = unary<U, U>([](U a) { return static_cast<U>(~a); });
    table["shl." + type] =
        shift<U>([](U a, u32 by) { return by < sizeof(U) * 8 ? static_cast<U>(u64{a} << by) : U{0}; });
}

template <class T>
void add_floating(Table& table, const std::string& type) {
    for (const char* rounding : {".rn.", "."}) {  // without one it may be fused; here it is not
        table["add" + (rounding + type)] = binary<T>([](T a, T b) { return a + b; });
        table["sub" + (rounding + type)] = binary<T>([](T a, T b) { return a - b; });
        table["mul" + (rounding + type)] = binary<T>([](T a, T b) { return a * b; });
    }
    table["div.rn." + type] = binary<T>([](T a, T b) { return a / b; });
    table["fma.rn." + type] = ternary<T>([](T a, T b, T c) { return std::fma(a, b, c); });
    table["fma.rm." + type] = ternary<T>([](T a, T b, T c) {
        const volatile T x = a, y = b, z = c;
        return static_cast<T>(rounded(FE_DOWNWARD, [&] { return std::fma(T{x}, T{y}, T{z}); }));
    });
    table["add.rz." + type] = binary<T>([](T a, T b) {
        const volatile T left = a, right = b;
        return static_cast<T>(rounded(FE_TOWARDZERO, [&] { return left + right; }));
    });
    table["sqrt.rn." + type] = unary<T, T>([](T a) { return std::sqrt(a); });
    table["rcp.rn." + type] = unary<T, T>([](T a) { return 1 / a; });
    table["rcp.approx.ftz." + type] = unary<T, T>([](T a) { return 1 / a; });
    table["neg." + type] = unary<T, T>([](T a) { return -a; });
    table["abs." + type] = unary<T, T>([](T a) { return std::abs(a); });
    table["min." + type] = binary<T>([](T a, T b) { return std::fmin(a, b); });
    table["max." + type] = binary<T>([](T a, T b) { return std::fmax(a, b); });
    table["copysign." + type] = binary<T>([](T sign, T value) { return std::copysign(value, sign); });
}

template <class T>
void add_moves(Table& table, const std::string& type) {
    table["mov." + type] = unary<T, T>([](T a) { return a; });
    table["selp." + type] = [](PtxThread& t, const PtxInstruction& i) {
        t.set<T>(i.to[0], t.get<T>(i.from[t.get<u8>(i.from[2]) & 1 ? 0 : 1]));
    };
}

void add_predicates(Table& table) {
    table["and.pred"] = binary<u8>([](u8 a, u8 b) { return static_cast<u8>(a & b & 1); });
    table["or.pred"] = binary<u8>([](u8 a, u8 b) { return static_cast<u8>((a | b) & 1); });
    table["xor.pred"] = binary<u8>([](u8 a, u8 b) { return static_cast<u8>((a ^ b) & 1); });
    table["not.pred"] = unary<u8, u8>([](u8 a) { return static_cast<u8>(~a & 1); });
    table["mov.pred"] = unary<u8, u8>([](u8 a) { return static_cast<u8>(a & 1); });
}

void add_wide(Table& table) {
    table["mul.wide.u32"] = binary<u32>([](u32 a, u32 b) { return u64{a} * b; });
    table["mul.wide.s32"] = binary<s32>([](s32 a, s32 b) { return s64{a} * b; });
    table["mul.hi.u32"] = binary<u32>([](u32 a, u32 b) { return static_cast<u32>(u64{a} * b >> 32); });
    const auto low = [](u64 product) { return product & 0xffffffffu; };
    const auto high = [](u64 product) { return product >> 32; };
    table["add.cc.u32"] = with_carry<false, true, false>(nullptr);
    table["addc.u32"] = with_carry<true, false, false>(nullptr);
    table["addc.cc.u32"] = with_carry<true, true, false>(nullptr);
    table["sub.cc.u32"] = with_carry<false, true, true>(nullptr);
    table["subc.u32"] = with_carry<true, false, true>(nullptr);
    table["subc.cc.u32"] = with_carry<true, true, true>(nullptr);
    table["mad.lo.cc.u32"] = with_carry<false, true, false>(low);
    table["madc.lo.cc.u32"] = with_carry<true, true, false>(low);
    table["madc.hi.u32"] = with_carry<true, false, false>(high);
    table["madc.hi.cc.u32"] = with_carry<true, true, false>(high);
}

template <class U>
void bit_field_insert(PtxThread& t, const PtxInstruction& i) {
    const U field = t.get<U>(i.from[0]), base = t.get<U>(i.from[1]);
    const u32 first = t.get<u32>(i.from[2]) & 0xff, length = t.get<u32>(i.from[3]) & 0xff,
              width = sizeof(U) * 8;
    const U ones = length >= width ? static_cast<U>(~U{0}) : static_cast<U>((U{1} << length) - 1);
    const U mask = first >= width ? U{0} : static_cast<U>(ones << first);
    t.set<U>(i.to[0], first >= width ? base : static_cast<U>((base & ~mask) | (field << first & mask)));
}

void permute_bytes(PtxThread& t, const PtxInstruction& i) {
    const u64 bytes = t.get<u32>(i.from[0]) | u64{t.get<u32>(i.from[1])} << 32;
    const u32 selectors = t.get<u32>(i.from[2]);
    u32 result = 0;
    for (u32 at = 0; at < 4; ++at) {
        const u32 selector = selectors >> 4 * at & 0xf;
        u32 byte = static_cast<u32>(bytes >> 8 * (selector & 7)) & 0xff;
        if (selector & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * at;
    }
    t.set<u32>(i.to[0], result);
}

void add_others(Table& table) {
    table["bfi.b32"] = bit_field_insert<u32>;
    table["bfi.b64"] = bit_field_insert<u64>;
    table["prmt.b32"] = permute_bytes;
    table["clz.b32"] = unary<u32, u32>([](u32 a) { return static_cast<u32>(std::countl_zero(a)); });
    table["clz.b64"] = unary<u32, u64>([](u64 a) { return static_cast<u32>(std::countl_zero(a)); });
    table["popc.b32"] = unary<u32, u32>([](u32 a) { return static_cast<u32>(std::popcount(a)); });
    table["cvt.rn.bf16x2.f32"] = [](PtxThread& t, const PtxInstruction& i) {
        t.set(i.to[0], bf16_pair(t.get<float>(i.from[1]), t.get<float>(i.from[0])));
    };
    // Approximate on hardware; flushing of subnormal numbers is left out with it.
    table["ex2.approx.ftz.f32"] = unary<float, float>([](float a) { return std::exp2(a); });
    table["mov.b64 unpack"] = [](PtxThread& t, const PtxInstruction& i) {
        const u64 both = t.get<u64>(i.from[0]);
        t.set<u32>(i.to[0], static_cast<u32>(both));
        t.set<u32>(i.to[1], static_cast<u32>(both >> 32));
    };
    table["mov.b64 pack"] = [](PtxThread& t, const PtxInstruction& i) {
        t.set<u64>(i.to[0], t.get<u32>(i.from[0]) | u64{t.get<u32>(i.from[1])} << 32);
    };
}

Table arithmetic_table() {
    Table table;
    add_integer<std::int16_t>(table, "s16");
    add_integer<u16>(table, "u16");
    add_integer<s32>(table, "s32");
    add_integer<u32>(table, "u32");
    add_integer<s64>(table, "s64");
    add_integer<u64>(table, "u64");
    add_bits<u16>(table, "b16");
    add_bits<u32>(table, "b32");
    add_bits<u64>(table, "b64");
    add_floating<float>(table, "f32");
    add_floating<double>(table, "f64");
    for (const char* type : {"b16", "u16", "s16"}) add_moves<u16>(table, type);
    for (const char* type : {"b32", "u32", "s32", "f32"}) add_moves<u32>(table, type);
    for (const char* type : {"b64", "u64", "s64", "f64"}) add_moves<u64>(table, type);
    add_predicates(table);
    add_wide(table);
    add_others(table);
    return table;
}

}  // namespace

PtxInstruction::Execute arithmetic_of(const std::string& opcode) {
    static const Table table = arithmetic_table();
    const auto found = table.find(opcode);
    return found == table.end() ? nullptr : found->second;
}

}  // namespace cuda_host
