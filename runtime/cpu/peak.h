// The arithmetic peak of this machine as a loop of fused multiply-adds reaches it: the yardstick of
// utilisation.
#pragma once

#include <string>
#include <vector>

#include "runtime/cpu/peak_loops.h"

namespace moesaic {

/// Floating-point operations per second; a fused multiply-add counts two.
struct Peak {
    double best = 0, median = 0;  ///< of the repetitions, each the sum over threads that run at the same time
    std::string loop;             ///< what ran
    bool assembly = false;
};

/// The highest peak of all loops for `type` with `threads` threads at once (the calling one included), over
/// `repetitions` of about 2 ms each. For bf16 the loop of f32 takes part: widened products run at its speed.
[[nodiscard]] Peak measure_peak(PeakType type, int threads, int repetitions = 11);

/// The same for every loop that this CPU can run, the highest first.
[[nodiscard]] std::vector<Peak> measure_peaks(PeakType type, int threads, int repetitions = 11);

/// The best of measure_peak for f32 or f64, for bf16.
[[nodiscard]] double measure_peak_flops(int threads, bool double_precision);
[[nodiscard]] double measure_bf16_peak_flops(int threads);

}  // namespace moesaic
