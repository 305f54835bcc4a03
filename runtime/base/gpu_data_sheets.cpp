#include "runtime/base/gpu_data_sheets.h"

#include <array>

namespace moesaic {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;
constexpr i64 kGib = i64{1} << 30;

// H100 SXM5: 1979 TFLOP/s bf16 with sparsity, 67 TFLOP/s fp32 and, by tensor cores, fp64, 3.35 TB/s, NVLink
// 900 GB/s both ways, 80 GB. H200: the same processor with 4.8 TB/s and 141 GB. HGX B200, one of eight
// GPUs: 4.5 PFLOP/s bf16 with sparsity, 75 TFLOP/s fp32, 37 TFLOP/s fp64, 7.7 TB/s, NVLink 1.8 TB/s both
// ways, 180 GB. Network: one adapter of 400 Gbit/s a GPU, as the DGX of each has.
constexpr std::array kGpus{
    GpuPeaks{"h100", "H100 SXM", 989.5 * kTera, 67 * kTera, 67 * kTera, 3350 * kGiga, 450 * kGiga, 50 * kGiga,
             8, 80 * kGib},
    GpuPeaks{"h200", "H200", 989.5 * kTera, 67 * kTera, 67 * kTera, 4800 * kGiga, 450 * kGiga, 50 * kGiga, 8,
             141 * kGib},
    GpuPeaks{"b200", "B200", 2250 * kTera, 75 * kTera, 37 * kTera, 7700 * kGiga, 900 * kGiga, 50 * kGiga, 8,
             180 * kGib},
};

}  // namespace

std::span<const GpuPeaks> gpu_peaks() {
    return kGpus;
}

}  // namespace moesaic
