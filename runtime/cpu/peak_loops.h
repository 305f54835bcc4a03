// Loops of nothing but arithmetic in registers, one per number type and instruction set: the work of peak.h.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

enum class PeakType { f32, f64, bf16 };  ///< bf16: products of bf16 summed in f32

struct PeakLoop {
    std::string name;       ///< e.g. "vfmadd213ps zmm, 24 accumulators"
    bool assembly = false;  ///< false: what the compiler made of C++, which may fall short of the machine
    double flops_per_round = 0;
    void (*run)(i64 rounds) = nullptr;  ///< on the calling thread
};

/// The hand-written assembly loops of `type` that this CPU and its operating system can run, the one with
/// the most flops per instruction first. Empty on other architectures, on x86-64 without AVX2, and for bf16
/// where the CPU has no instruction for it.
[[nodiscard]] std::vector<PeakLoop> assembly_peak_loops(PeakType type);

/// The same work as C++ for the widest vectors that the products here use; f32 or f64.
[[nodiscard]] PeakLoop portable_peak_loop(PeakType type);

/// Whether this CPU sums products of pairs of bf16 (AVX512_BF16: vdpbf16ps).
[[nodiscard]] bool has_bf16_dot_product();
/// Whether it does so more quickly than it multiplies and adds in f32: Intel's with AVX512_FP16 (Sapphire
/// Rapids and later) run vdpbf16ps at half that speed (measured: 115 of 238 GFLOP/s).
[[nodiscard]] bool has_quick_bf16_dot_product();
/// Whether it has tiles for that (AMX_BF16: tdpbf16ps), and the operating system lets this process use them.
[[nodiscard]] bool has_amx_bf16();

}  // namespace moesaic
