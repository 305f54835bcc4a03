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
/// Before one that would take too many.
#define GPU_KEEP_LOOP _Pragma("unroll 1")

/// Instructions without a C++ spelling; what lanes have is in the PTX ISA 9.0 under their names.
namespace gpu {

__device__ inline unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
/// mma.sync of tensor cores: sums [16,8] += a [16,16] b [16,8] of bf16. Lane l has of sums the elements (l/4,
/// 2(l%4)), the next column, and the same two eight rows below; of a the pairs that begin at (l/4, 2(l%4)),
/// eight rows below, eight columns on, and both; of b the pairs of rows that begin at (2(l%4), l/4), and
/// eight rows below.
__device__ inline void multiply_matrices(float& s0, float& s1, float& s2, float& s3, const unsigned (&a)[4],
                                         unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(s0), "+f"(s1), "+f"(s2), "+f"(s3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// ldmatrix: four matrices [8,8] of 16 bits from shared memory; lane l names row l % 8 of matrix l / 8,
/// and gets of each the pair that begins at (l/4, 2(l%4)), or of the transposed matrix.
__device__ inline void load_matrices(unsigned (&pairs)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ inline void load_transposed(unsigned (&pairs)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
}
/// cp.async: 16 bytes of device memory to shared memory, both at multiples of 16; there after
/// wait_for_copies.
__device__ inline void copy_16_bytes(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
                 : "memory");
}
__device__ inline void clear_16_bytes(void* shared) {
    *static_cast<uint4*>(shared) = make_uint4(0, 0, 0, 0);
}
/// For the thread's own; a barrier makes them the block's.
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}
/// Stores to device memory that the compiler would take apart.
__device__ inline void store_whole(float4* to, const float4& value) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(value.x),
                 "f"(value.y), "f"(value.z), "f"(value.w)
                 : "memory");
}
__device__ inline void store_whole(float2* to, const float2& value) {
    asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "f"(value.x),
                 "f"(value.y)
                 : "memory");
}
/// Two numbers as bf16, to nearest, ties to even; the first in the lower half.
__device__ inline unsigned bf16_pair(float first, float second) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
/// 2^x but for 2^-22 of it; subnormal results are 0.
__device__ inline float power_of_2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

}  // namespace gpu

#else

#include "cuda_host/device.h"  // tests/cuda_host

#endif
