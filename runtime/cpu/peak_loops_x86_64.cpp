// The peak loops in x86-64 assembly: AVX-512, AVX2 with FMA, AVX512_BF16 and AMX tiles.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>

#include "runtime/cpu/amx_tile_config.h"
#include "runtime/cpu/peak_loops.h"

namespace moesaic {

namespace {

// How many independent accumulators there are decides whether latency hides: a fused multiply-add takes 4 or
// 5 cycles on 2 ports, so 10 would do; 24 leave room for ports of other widths. AVX2 has 16 registers, of
// which two are operands. The values converge to 1000 and stay there: no infinity, no denormal, no zero.
constexpr float kFactor = 0.999F, kAddend = 1.0F;
constexpr double kFactorDouble = 0.999, kAddendDouble = 1.0;
constexpr int kUnrolled = 4;

#define MOESAIC_INDICES_24 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"
#define MOESAIC_INDICES_14 "0,1,2,3,4,5,6,7,8,9,10,11,12,13"
#define MOESAIC_CLOBBERS_16                                                                           \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
        "xmm12", "xmm13", "xmm14", "xmm15"
#define MOESAIC_CLOBBERS_32                                                                               \
    MOESAIC_CLOBBERS_16, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", \
        "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"

// Broadcasts the two operands, starts every accumulator with the addend, then repeats `step` over all of
// them.
#define MOESAIC_VECTOR_LOOP(reg, indices, broadcast, factor_at, addend_at, step)                           \
    broadcast " %[factor], %%" reg factor_at "\n\t" broadcast " %[addend], %%" reg addend_at               \
              "\n\t"                                                                                       \
              ".irp n," indices "\n\t" broadcast " %[addend], %%" reg                                      \
              "\\n\n\t.endr\n\t"                                                                           \
              ".p2align 6\n1:\n\t"                                                                         \
              ".rept 4\n\t.irp n," indices "\n\t" step " %%" reg addend_at ", %%" reg factor_at ", %%" reg \
              "\\n\n\t.endr\n\t.endr\n\t"                                                                  \
              "dec %[rounds]\n\tjnz 1b\n\tvzeroupper"

__attribute__((target("avx512f"))) void f32_avx512(i64 rounds) {
    asm volatile(MOESAIC_VECTOR_LOOP("zmm", MOESAIC_INDICES_24, "vbroadcastss", "24", "25", "vfmadd213ps")
                 : [rounds] "+r"(rounds)
                 : [factor] "m"(kFactor), [addend] "m"(kAddend)
                 : "cc", MOESAIC_CLOBBERS_32);
}

__attribute__((target("avx512f"))) void f64_avx512(i64 rounds) {
    asm volatile(MOESAIC_VECTOR_LOOP("zmm", MOESAIC_INDICES_24, "vbroadcastsd", "24", "25", "vfmadd213pd")
                 : [rounds] "+r"(rounds)
                 : [factor] "m"(kFactorDouble), [addend] "m"(kAddendDouble)
                 : "cc", MOESAIC_CLOBBERS_32);
}

__attribute__((target("avx2,fma"))) void f32_avx2(i64 rounds) {
    asm volatile(MOESAIC_VECTOR_LOOP("ymm", MOESAIC_INDICES_14, "vbroadcastss", "14", "15", "vfmadd213ps")
                 : [rounds] "+r"(rounds)
                 : [factor] "m"(kFactor), [addend] "m"(kAddend)
                 : "cc", MOESAIC_CLOBBERS_16);
}

__attribute__((target("avx2,fma"))) void f64_avx2(i64 rounds) {
    asm volatile(MOESAIC_VECTOR_LOOP("ymm", MOESAIC_INDICES_14, "vbroadcastsd", "14", "15", "vfmadd213pd")
                 : [rounds] "+r"(rounds)
                 : [factor] "m"(kFactorDouble), [addend] "m"(kAddendDouble)
                 : "cc", MOESAIC_CLOBBERS_16);
}

// Accumulator += pairs of bf16 products. 0x3C00 is 2^-7 and 0x3F80 is 1: the sums grow until f32 rounds the
// increment away, far from infinity.
constexpr std::uint32_t kSmallPair = 0x3C003C00, kOnePair = 0x3F803F80;

__attribute__((target("avx512f"))) void bf16_avx512(i64 rounds) {
    asm volatile(MOESAIC_VECTOR_LOOP("zmm", MOESAIC_INDICES_24, "vpbroadcastd", "24", "25", "vdpbf16ps")
                 : [rounds] "+r"(rounds)
                 : [factor] "m"(kSmallPair), [addend] "m"(kOnePair)
                 : "cc", MOESAIC_CLOBBERS_32);
}

// Six accumulator tiles and two operands are all eight; four would hide the latency (52 cycles, one product
// every 16).
void bf16_amx(i64 rounds) {
    alignas(64) static const TileConfig config = [] {
        TileConfig whole;
        for (std::size_t tile = 0; tile < 8; ++tile) whole.rows[tile] = 16;
        return whole;
    }();
    alignas(64) static const std::array<std::uint16_t, 16 * 32> values = [] {
        std::array<std::uint16_t, 16 * 32> small{};
        small.fill(0x3C00);
        return small;
    }();
    const i64 stride = 64;
    asm volatile(
        "ldtilecfg %[config]\n\t"
        "tileloadd (%[values], %[stride], 1), %%tmm6\n\t"
        "tileloadd (%[values], %[stride], 1), %%tmm7\n\t"
        ".irp n,0,1,2,3,4,5\n\ttilezero %%tmm\\n\n\t.endr\n\t"
        ".p2align 6\n1:\n\t"
        ".rept 4\n\t.irp n,0,1,2,3,4,5\n\ttdpbf16ps %%tmm7, %%tmm6, %%tmm\\n\n\t.endr\n\t.endr\n\t"
        "dec %[rounds]\n\tjnz 1b\n\ttilerelease"
        : [rounds] "+r"(rounds)
        : [config] "m"(config), [values] "r"(values.data()), [stride] "r"(stride)
        : "cc", "memory");
}

struct Features {
    bool avx2_fma = false, avx512f = false, avx512_bf16 = false, avx512_fp16 = false, amx_bf16 = false;
    bool by_intel = false;
};

/// Linux gives a process the state of AMX tiles only when asked (Documentation/arch/x86/xstate.rst).
bool ask_for_tiles() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Features find_features() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    Features found;
    if (!__get_cpuid(0, &a, &b, &c, &d)) return found;
    found.by_intel = b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
    const bool fma = (c >> 12) & 1, os_saves_registers = (c >> 27) & 1;
    if (!os_saves_registers || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    std::uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const bool ymm = (low & 0x6) == 0x6, zmm = (low & 0xE6) == 0xE6, tiles = (low & 0x60000) == 0x60000;
    found.avx2_fma = ymm && fma && ((b >> 5) & 1);
    found.avx512f = zmm && ((b >> 16) & 1);
    found.avx512_fp16 = zmm && ((d >> 23) & 1);
    const bool amx = ((d >> 22) & 1) && ((d >> 24) & 1);
    found.amx_bf16 = amx && tiles && ask_for_tiles();
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) found.avx512_bf16 = found.avx512f && ((a >> 5) & 1);
    return found;
}

const Features& features() {
    static const Features found = find_features();
    return found;
}

}  // namespace

std::vector<PeakLoop> assembly_peak_loops(PeakType type) {
    const Features& cpu = features();
    std::vector<PeakLoop> loops;
    const auto add = [&](const char* name, double flops_per_instruction, int accumulators, void (*run)(i64)) {
        loops.push_back({name, true, flops_per_instruction * accumulators * kUnrolled, run});
    };
    if (type == PeakType::bf16) {
        if (cpu.amx_bf16) add("tdpbf16ps, 6 tiles", 2.0 * 16 * 16 * 32, 6, bf16_amx);
        if (cpu.avx512_bf16) add("vdpbf16ps zmm, 24 accumulators", 2.0 * 32, 24, bf16_avx512);
    } else {
        const bool single = type == PeakType::f32;
        if (cpu.avx512f)
            add(single ? "vfmadd213ps zmm, 24 accumulators" : "vfmadd213pd zmm, 24 accumulators",
                single ? 2.0 * 16 : 2.0 * 8, 24, single ? f32_avx512 : f64_avx512);
        if (cpu.avx2_fma)
            add(single ? "vfmadd213ps ymm, 14 accumulators" : "vfmadd213pd ymm, 14 accumulators",
                single ? 2.0 * 8 : 2.0 * 4, 14, single ? f32_avx2 : f64_avx2);
    }
    return loops;
}

bool has_bf16_dot_product() {
    return features().avx512_bf16;
}
bool has_quick_bf16_dot_product() {
    return features().avx512_bf16 && !(features().by_intel && features().avx512_fp16);
}
bool has_amx_bf16() {
    return features().amx_bf16;
}

}  // namespace moesaic
