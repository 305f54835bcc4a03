// The instruction sets that vector kernels are compiled for; include after defining HWY_TARGET_INCLUDE.
#pragma once

// The baseline, AVX2 and AVX-512: the sets between them cost compile time and gain nothing measurable, and
// the scalable ones cannot be kept in arrays.
#define HWY_DISABLED_TARGETS \
    (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#include <hwy/foreach_target.h>
