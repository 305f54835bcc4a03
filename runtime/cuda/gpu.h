// What kernels are written against: nvcc's CUDA, or the emulator that runs them on the host. The one place
// where the two differ.
#pragma once

#include <cuda_runtime.h>

#ifdef __CUDACC__

/// An array in the block's shared memory; its contents are undefined until written.
#define GPU_SHARED(T, name, N) __shared__ T name[N]
/// The block's shared memory that the launch asks for.
#define GPU_DYN_SHARED(T, name) extern __shared__ T name[]
/// Enqueues `kernel`, in parentheses where it has template arguments.
#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
/// Before a loop whose arrays have to be registers.
#define GPU_UNROLL _Pragma("unroll")

#else

#include "cuda_host/device.h"  // tests/cuda_host

#endif
