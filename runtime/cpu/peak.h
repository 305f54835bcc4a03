// The arithmetic peak of this machine as a loop of fused multiply-adds reaches it: the yardstick of
// utilisation.
#pragma once

namespace moesaic {

/// Floating-point operations per second (a fused multiply-add counts two) of `threads` threads at once, in
/// f32 or f64: the best of several rounds of a few milliseconds each, with the widest vectors that the
/// products here use.
[[nodiscard]] double measure_peak_flops(int threads, bool double_precision);

}  // namespace moesaic
