// Kernels on the emulator, each of them once.
#pragma once

namespace cuda_host {

/// Runs every kernel of the back end at least once, for f32, on small operands, and waits for each family.
/// Fails the running test where one does not end.
void run_every_kernel();

}  // namespace cuda_host
